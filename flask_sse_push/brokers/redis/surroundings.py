"""Looks for data of processes that use the same Redis with other settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from .broker import RedisBroker
from .client import connection_apart

#: The name of a shard's state. The first group is the prefix.
_STATE = re.compile(r"\{([A-Za-z0-9_.-]{1,64}):[0-7]\}:state")
#: At most how many calls the search for prefixes makes, and about how many keys each call examines.
SCANS, SCANNED = 50, 1000
#: At most how many databases, how many of the newest channels, and how many other prefixes are examined.
DATABASES, CHANNELS, PREFIXES = 16, 10, 1000
#: At most how many other prefixes are shown.
SHOWN_PREFIXES = 10


class Kept(NamedTuple):
    """How one channel is kept: how many events, and for how many seconds after the newest event."""

    channel: str
    events: int
    seconds: float


class Surroundings(NamedTuple):
    """What this app and other processes keep in the same Redis."""

    has_events: bool  # whether this app has events under its own prefix, in its own database
    prefixes: tuple[str, ...]  # other prefixes in the same database, the first SHOWN_PREFIXES of them
    databases: tuple[int, ...]  # other databases that have events under the app's own prefix
    kept: tuple[Kept, ...]  # the newest channels
    ahead: float  # by how many seconds the newest event is ahead of the server's clock


class Elsewhere(NamedTuple):
    """Events of a channel that lie under another prefix, or in another database, than this app's."""

    prefix: str
    database: int | None  # None: this app's own database
    newest: int  # the id of the newest event


def elsewhere(broker: RedisBroker, prefix: str, channel: str) -> list[Elsewhere]:
    """Returns the other places in this Redis where events of a channel lie. Blocks for some calls.

    :param prefix: the setting SSE_PUSH_PREFIX.
    :raises BrokerUnavailable: if the server does not answer.
    """
    with connection_apart(broker.pool) as connection:  # the search changes its database
        return list(_Search(connection, broker.base, prefix).elsewhere(channel))


def surroundings(broker: RedisBroker, prefix: str) -> Surroundings:
    """Returns what processes with other settings keep in this Redis. Blocks for some calls.

    Leaves out facts that the server does not allow this user to read.

    :param prefix: the setting SSE_PUSH_PREFIX.
    :raises BrokerUnavailable: if the server does not answer.
    """
    with connection_apart(broker.pool) as connection:  # the search changes its database
        return _Search(connection, broker.base, prefix).run()


class _Search:
    def __init__(self, connection: Any, base: str, prefix: str) -> None:
        self._connection = connection
        self._base = base
        self._prefix = prefix

    def run(self) -> Surroundings:
        heads = self._ask([], "ZREVRANGE", self._base + "heads", 0, CHANNELS, "WITHSCORES")
        newest = [
            (name.decode(errors="replace"), float(score))
            for name, score in zip(heads[::2], heads[1::2], strict=True)
            if name not in (b"", b"*") and not name.startswith(b"!")
        ]
        seconds, micros = self._ask([0, 0], "TIME")
        now = int(seconds) + int(micros) / 1e6
        kept = [each for name, head in newest if (each := self._kept(name, head / 1e6, now)) is not None]
        [last] = self._ask([None], "HMGET", self._base + "state", "last")
        ahead = int(last) / 1e6 - now if last and last.isdigit() and now else 0.0
        return Surroundings(
            bool(newest), self._prefixes()[:SHOWN_PREFIXES], self._databases(), tuple(kept), ahead
        )

    def elsewhere(self, channel: str) -> Iterator[Elsewhere]:
        """Yields the other places where events of a channel lie. Switches the connection's database."""
        for prefix in self._prefixes():
            newest = self._newest(f"{{{prefix}:0}}:heads", channel)
            if newest:
                yield Elsewhere(prefix, None, newest)
        for database in self._databases():
            self._ask(None, "SELECT", database)
            newest = self._newest(self._base + "heads", channel)
            if newest:
                yield Elsewhere(self._prefix, database, newest)

    def _newest(self, heads: str, channel: str) -> int:
        """Returns the id of a channel's newest event; 0 if there is none.

        :param heads: the key of the sorted set with the newest id of each channel.
        """
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return int(float(self._ask(0, "ZSCORE", heads, channel)))
        return 0

    def _kept(self, channel: str, head: float, now: float) -> Kept | None:
        key = f"{self._base}list:{channel}"
        left, events = self._ask(-1, "PTTL", key), self._ask(0, "LLEN", key)
        return Kept(channel, int(events), now - head + int(left) / 1000) if int(left) > 0 else None

    def _prefixes(self) -> tuple[str, ...]:
        found = {match[1] for key in self._keys() if (match := _STATE.fullmatch(key))}
        return tuple(sorted(found - {self._prefix}))[:PREFIXES]

    def _keys(self) -> Iterator[str]:
        cursor = "0"
        for _ in range(SCANS):
            at, keys = self._ask([b"0", []], "SCAN", cursor, "MATCH", "{*}:state", "COUNT", SCANNED)
            yield from (key.decode(errors="replace") for key in keys)
            cursor = at.decode()
            if cursor == "0":
                return

    def _databases(self) -> tuple[int, ...]:
        own = int(getattr(self._connection, "db", 0) or 0)
        return tuple(number for number in range(DATABASES) if number != own and self._is_used(number))

    def _is_used(self, database: int) -> bool:
        """Whether a database has events under the app's prefix. Selects this database."""
        changed = self._ask(None, "SELECT", database) is not None
        return changed and bool(self._ask(0, "EXISTS", self._base + "state"))

    def _ask(self, default: Any, *command: Any) -> Any:
        """Returns the reply to a command; `default` if the server refuses the command."""
        with contextlib.suppress(RedisError):
            self._connection.send_command(*command, check_health=False)
            return self._connection.read_response()
        return default
