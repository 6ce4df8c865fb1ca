"""The pass that `flask sse doctor` sends. It shows that a process with the app's secret key has made it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any

from itsdangerous import BadSignature, TimestampSigner

#: The header that carries the pass.
HEADER = "X-SSE-Push-Pass"
#: A pass is valid for this many seconds. The clocks of the two machines may differ by as much.
VALID = 600.0
#: At most how many characters a pass may have.
MAX_LENGTH = 200
_SALT = "flask-sse-push doctor"


def make_pass(keys: Sequence[Any]) -> str:
    """Returns a pass that is valid from now on.

    :param keys: the app's secret keys, the newest last.
    """
    return _signer(keys).sign(b"doctor").decode()


def is_valid(keys: Sequence[Any], given: str) -> bool:
    """Whether a pass was made with one of the secret keys, at most `VALID` seconds ago."""
    if not keys[-1] or len(given) > MAX_LENGTH:
        return False
    try:
        _, made_at = _signer(keys).unsign(given, return_timestamp=True)
    except BadSignature:
        return False
    return abs(time.time() - made_at.timestamp()) <= VALID


def digest(keys: Sequence[Any], text: str) -> str:
    """Returns a text that is the same for the same `text` and key, and that does not disclose `text`."""
    key = keys[-1] if isinstance(keys[-1], bytes) else str(keys[-1]).encode()
    return hmac.new(key, f"{_SALT}:{text}".encode(), hashlib.sha256).hexdigest()


def _signer(keys: Sequence[Any]) -> TimestampSigner:
    return TimestampSigner([key for key in keys if key], salt=_SALT, digest_method=hashlib.sha256)
