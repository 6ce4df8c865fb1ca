"""Signs tickets and computes the secrets of streams with the app's secret keys. Stores none of them.

A ticket is for clients that can send neither cookies nor headers, such as a native EventSource. The ticket
names a user and channels, and opens one stream within a minute. The broker remembers each used ticket until
it expires.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

from itsdangerous import BadSignature, URLSafeSerializer

from ..brokers.base import NO_INBOX, Broker
from ..errors import shown
from ..hub.revocations import Revocation
from ..protocol import cursor
from ..protocol.command import COMMAND_CHANNEL, REVOKE, REVOKE_SESSION, parse_command
from ..protocol.entry import Entry
from .identity import expired_token, invalid_ticket

#: A ticket is valid for at most this many seconds, because it stands in a URL, which other people may see.
LONGEST = 60.0
#: Name of the query parameter that carries the ticket.
PARAMETER = "ticket"
#: At most how many characters a ticket may have, because checking a long ticket takes long. For each channel
#: that a stream may have, the second number is added: Base64 writes the 203 bytes of the longest name with
#: quotes and comma in 271 characters.
MAX_LENGTH, MAX_LENGTH_PER_CHANNEL = 8192, 272


#: Returns the revocations of a user and a session after a cursor; None if this worker does not know them all.
Known = Callable[[str | None, str | None, str], Sequence[Revocation] | None]


class Ticket(NamedTuple):
    """The content of a ticket. Each ticket has a different `name`. `expires` is a Unix time in seconds.

    `asked` is a cursor that is older than the app's answer that the user may listen. `login_id` is the id by
    which flask-login finds the user; `session` names the session that the user signed in with.
    """

    name: str
    user_id: str | None
    channels: tuple[str, ...]
    expires: float
    asked: str = ""
    login_id: str | None = None
    session: str | None = None

    def is_revoked(self, broker: Broker, known: Known = lambda user_id, session, asked: None) -> bool:
        """Whether the app has revoked rights of the ticket since it gave them, after the cursor `asked`.

        Blocks for one call to the broker, if this worker does not know. Also True if the broker has lost its
        data since then, or does not keep all commands since then.

        :param known: returns what this worker knows, see `Disconnector.revoked_since`.
        :raises BrokerUnavailable: if the broker does not answer in time.
        """
        asked = cursor.parse(self.asked)
        if self.user_id is None:
            return False
        if asked is None:
            return True
        found = known(self.user_id, self.session, self.asked)
        if found is not None:
            return any(each.channel is None or each.channel in self.channels for each in found)
        history = broker.shards[0].history({COMMAND_CHANNEL: asked.id}, NO_INBOX)
        commands = history.channels[COMMAND_CHANNEL]
        complete = cursor.belongs(asked, history.epoch, history.lineage) and commands.start <= asked.id
        return not complete or any(
            self._is_ended_by(entry) for entry in commands.entries if entry.id > asked.id
        )

    def _is_ended_by(self, entry: Entry) -> bool:
        try:
            command = parse_command(entry)
        except ValueError:
            return True  # nobody knows what the command was
        arguments = command.arguments
        if command.name == REVOKE_SESSION:
            return bool(arguments["session"] == self.session)
        if command.name != REVOKE or arguments["user_id"] != self.user_id:
            return False
        channel = arguments.get("channel")
        return channel is None or channel in self.channels


class Tickets:
    """Signs and reads tickets.

    :param keys: the app's secret keys, the newest last. The newest key signs; all keys are accepted.
    :param audience: a text that differs between two blueprints with the same keys, so that neither accepts
        the other's tickets.
    """

    def __init__(self, keys: Sequence[str | bytes], audience: str) -> None:
        self._serializer = URLSafeSerializer(_as_bytes(keys), salt=f"flask-sse-push.ticket.{audience}")

    def sign(
        self,
        user_id: str | None,
        channels: Iterable[str],
        seconds: float = LONGEST,
        asked: str = "",
        login_id: str | None = None,
        session: str | None = None,
    ) -> str:
        """Returns a new signed ticket, as text that fits into a URL.

        :param seconds: how long the ticket is valid.
        :param asked: a cursor that is older than the app's answer that the user may listen to the channels.
        :param login_id: the id by which flask-login finds the user.
        :param session: the name of the session with which the user signed in.
        :raises ValueError: if `seconds` is not a number above 0, or is above LONGEST; if an id of the user is
            not UTF-8.
        """
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds <= LONGEST:
            raise ValueError(f"seconds is {shown(seconds)}, must be more than 0 and at most {LONGEST:g}")
        expires_ms = math.ceil((time.time() + seconds) * 1000)
        name, known_by = secrets.token_urlsafe(12), None if login_id == user_id else login_id
        content = [name, user_id, list(channels), expires_ms, asked, known_by, session]
        try:
            signed: str | bytes = self._serializer.dumps(content)
        except UnicodeEncodeError:
            id = shown(user_id if known_by is None else known_by)
            raise ValueError(f"the id of the user is {id}, which has a lone surrogate: not UTF-8") from None
        return signed.decode() if isinstance(signed, bytes) else signed

    def read(self, text: str, max_channels: int = 0) -> Ticket:
        """Returns the content of a ticket. Does not check whether the ticket was already used.

        :param max_channels: the ticket may be long enough for this many channels.
        :raises Refused: if the ticket is not valid. The status is 401; the error code is 1103 for an expired
            ticket, and 1102 for any other invalid ticket.
        """
        if len(text) > MAX_LENGTH + MAX_LENGTH_PER_CHANNEL * max_channels:
            raise invalid_ticket()
        try:
            content = self._serializer.loads(text)
            name, user_id, channels, expires_ms, asked, known_by, session = content
        except (BadSignature, ValueError) as error:
            raise invalid_ticket() from error
        if time.time() * 1000 >= expires_ms:
            raise expired_token()
        expires = expires_ms / 1000
        return Ticket(name, user_id, tuple(channels), expires, asked, known_by or user_id, session)


class StreamSecrets:
    """Computes and checks the secrets of streams.

    The event `sse.open` gives the secret to the client of the stream. A request to change the channels of the
    stream must contain the secret. Any worker can check the secret.

    :param keys: the app's secret keys, the newest last. The newest key signs; all keys are accepted.
    :param audience: a text that differs between two blueprints with the same keys, so that neither accepts
        the other's secrets.
    """

    def __init__(self, keys: Sequence[str | bytes], audience: str) -> None:
        salt = f"flask-sse-push.stream.{audience}".encode()
        self._keys = [hmac.digest(key, salt, "sha256") for key in _as_bytes(keys)]

    def of(self, connection: str, user_id: str | None) -> str:
        """Returns the secret of a stream.

        :param connection: the connection id of the stream.
        :param user_id: the id of the stream's user; None if the stream has no user.
        """
        return _stream_secret(self._keys[-1], connection, user_id)

    def match(self, secret: str, connection: str, user_id: str | None) -> bool:
        """Returns whether `secret` is the secret of the stream `connection`, opened by the user `user_id`."""
        given = secret.encode("utf-8", "replace")
        expected = [_stream_secret(key, connection, user_id).encode() for key in self._keys]
        return any(hmac.compare_digest(one, given) for one in expected)


#: Two functions: the first returns a `Tickets`, the second a `StreamSecrets`. Their results are cached,
#: because making such an object takes longer than signing with it.
tickets_signed_with = lru_cache(16)(Tickets)
stream_secrets = lru_cache(16)(StreamSecrets)


def _stream_secret(key: bytes, connection: str, user_id: str | None) -> str:
    stream = f"{connection}\n{'' if user_id is None else '=' + user_id}".encode()
    return urlsafe_b64encode(hmac.digest(key, stream, "sha256")).decode().rstrip("=")


def _as_bytes(keys: Sequence[str | bytes]) -> list[bytes]:
    return [key.encode() if isinstance(key, str) else key for key in keys]


# -- keeping tickets out of logs -----------------------------------------------------------------------------


def redacted_url(url: str) -> str:
    """Returns a URL with `***` for each ticket in its query."""
    path, mark, query = url.partition("?")
    return path + mark + redacted_query(query)


def redacted_query(query: str) -> str:
    """Returns a query with `***` for each ticket."""
    return "&".join(f"{PARAMETER}=***" if _names_ticket(part) else part for part in query.split("&"))


def _names_ticket(part: str) -> bool:
    return unquote_plus(part.partition("=")[0]) == PARAMETER
