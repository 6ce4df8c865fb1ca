"""Tickets: what lets a native EventSource in that can send neither cookies nor headers.

A ticket is signed by the app, names a user and channels, and is good for one stream within a minute. It says
so itself; the broker only remembers, for that minute, which ones were used.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

from itsdangerous import BadSignature, URLSafeSerializer

from .identity import expired_token, refused_token

#: Seconds a ticket may be good for at most: it stands in a URL, which others may get to see.
LONGEST = 60.0
#: The parameter of the query.
PARAMETER = "ticket"
#: Characters of a ticket; one is checked at the cost of its length.
MAX_LENGTH = 8192

_SALT = "flask-sse-push.ticket"


class Ticket(NamedTuple):
    """What a ticket says. `expires` is Unix time in seconds, `name` is its own alone."""

    name: str
    user_id: str | None
    channels: tuple[str, ...]
    expires: float


class Tickets:
    """Signs and reads tickets. Pure but for the clock and chance.

    :param keys: the app's secret keys, newest last; all of them are accepted.
    :param audience: sets tickets of one blueprint apart from those of another with the same keys.
    """

    def __init__(self, keys: Sequence[str | bytes], audience: str) -> None:
        as_bytes = [key.encode() if isinstance(key, str) else key for key in keys]
        self._serializer = URLSafeSerializer(as_bytes, salt=f"{_SALT}.{audience}")

    def sign(self, user_id: str | None, channels: Iterable[str], seconds: float = LONGEST) -> str:
        """A new ticket, as it goes into the query.

        :raises ValueError: for a time over LONGEST, or none.
        """
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"seconds is {seconds!r}, a ticket is good for at most {LONGEST:g}")
        expires_ms = math.ceil((time.time() + seconds) * 1000)
        content = [secrets.token_urlsafe(12), user_id, list(channels), expires_ms]
        signed: str | bytes = self._serializer.dumps(content)
        return signed.decode() if isinstance(signed, bytes) else signed

    def read(self, text: str) -> Ticket:
        """What a ticket says, whether it was used or not.

        :raises Refused: 401, with 1103 for one that has expired, 1102 for any other fault.
        """
        if len(text) > MAX_LENGTH:
            raise refused_token()
        try:
            name, user_id, channels, expires_ms = self._serializer.loads(text)
        except (BadSignature, UnicodeError) as error:
            raise refused_token() from error
        if time.time() * 1000 >= expires_ms:
            raise expired_token()
        return Ticket(name, user_id, tuple(channels), expires_ms / 1000)


def redacted_url(url: str) -> str:
    """A URL as it may stand in a log: without the ticket in its query."""
    path, mark, query = url.partition("?")
    return path + mark + redacted_query(query)


def redacted_query(query: str) -> str:
    """A query as it may stand in a log: without the ticket."""
    return "&".join(f"{PARAMETER}=***" if _names_ticket(part) else part for part in query.split("&"))


def _names_ticket(part: str) -> bool:
    return unquote_plus(part.partition("=")[0]) == PARAMETER


class StreamSecrets:
    """What `sse.open` tells a client alone, so that only it can change its stream.

    Signed, not stored: any worker can check one.

    :param keys: the app's secret keys, newest last; all of them are accepted.
    """

    def __init__(self, keys: Sequence[str | bytes], audience: str) -> None:
        salt = f"flask-sse-push.stream.{audience}".encode()
        as_bytes = [key.encode() if isinstance(key, str) else key for key in keys]
        self._keys = [hmac.digest(key, salt, "sha256") for key in as_bytes]

    def of(self, connection: str, user_id: str | None) -> str:
        """The secret of a stream."""
        return _signed(self._keys[-1], _stream(connection, user_id))

    def match(self, secret: str, connection: str, user_id: str | None) -> bool:
        """Whether `secret` is the stream's, and `user_id` its user."""
        given, stream = secret.encode("utf-8", "replace"), _stream(connection, user_id)
        return any(hmac.compare_digest(_signed(key, stream).encode(), given) for key in self._keys)


#: The secrets for a set of keys: made once, for the keys derived cost more than a signature.
stream_secrets = lru_cache(16)(StreamSecrets)


def _signed(key: bytes, stream: bytes) -> str:
    return urlsafe_b64encode(hmac.digest(key, stream, "sha256")).decode().rstrip("=")


def _stream(connection: str, user_id: str | None) -> bytes:
    return f"{connection}\n{'' if user_id is None else '=' + user_id}".encode()
