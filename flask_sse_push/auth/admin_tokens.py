"""The tokens that an admin's page sends with each write. A page of another site cannot read them (CSRF)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from itsdangerous import BadSignature, TimestampSigner

#: The header that carries the token.
HEADER = "X-SSE-Admin"
#: A token is valid for this many seconds. The page then gets a new one.
VALID = 12 * 3600.0
#: By how many seconds the clock of the worker that made the token may be ahead.
SKEW = 600.0
#: At most how many characters a token may have.
MAX_LENGTH = 200
_SALT = "flask-sse-push admin"


class AdminTokens:
    """Makes and checks the tokens of one admin in one session.

    :param keys: the app's secret keys, the newest last. The newest key signs; all keys are accepted.
    :param whose: what the tokens are bound to: the blueprint's prefix, the user's id and the session's name.
    """

    def __init__(self, keys: Sequence[Any], whose: Sequence[str | None]) -> None:
        self._signer = TimestampSigner([key for key in keys if key], salt=_SALT, digest_method=hashlib.sha256)
        self._owner = hashlib.sha256(json.dumps(list(whose)).encode()).hexdigest()

    def make(self) -> str:
        """Returns a token that is valid from now on."""
        return self._signer.sign(self._owner.encode()).decode()

    def is_valid(self, given: str) -> bool:
        """Whether `given` is a token of this admin and this session, made at most `VALID` seconds ago."""
        if len(given) > MAX_LENGTH:
            return False
        try:
            owner, made_at = self._signer.unsign(given.encode(), return_timestamp=True)
        except (BadSignature, UnicodeEncodeError):
            return False
        age = time.time() - made_at.timestamp()
        return owner.decode() == self._owner and -SKEW <= age <= VALID
