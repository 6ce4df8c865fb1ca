"""A connection to Redis outside the pool, for commands that a caller has packed itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from .. import forks
from .client import close_copy, connection_apart

#: After so many seconds without a call, `round_trip` checks the connection before it uses it: the server may
#: have closed it.
QUIET = 1.0


class DirectConnection:
    """One connection that sends several commands together. Opens with the first call, and again when needed.

    Only one thread or greenlet at a time may call `round_trip` or `run`.

    :param pool: returns a pool that says how to connect. The pool does not know the connection.
    """

    def __init__(self, pool: Callable[[], ConnectionPool]) -> None:
        self._pool = pool
        self._connection: Any = None
        self._used_at = 0.0
        self._is_used = False  # whether a round trip is under way
        forks.watch(self)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        connection, self._connection, self._is_used = self._connection, None, False
        if connection is not None:
            forks.keep(connection)
            close_copy(connection)

    def round_trip(self, commands: Sequence[bytes]) -> list[Any]:
        """Sends commands together and returns their replies. The reply to a refused command is the error.

        Blocks to connect, and for each reply, at most for the pool's `socket_timeout`. If a signal interrupts
        a round trip and its handler calls this method too, the handler gets a connection of its own.

        :param commands: each made by `command`.
        :raises redis.exceptions.RedisError: if the connection fails; BrokerUnavailable in such a handler.
        """
        if self._is_used:
            with connection_apart(self._pool()) as connection:
                return _exchange(connection, commands)
        self._is_used = True
        try:
            return _exchange(self._ready(), commands)
        except BaseException:  # an unread reply would look like the reply to the next command
            self.close()
            raise
        finally:
            self._is_used = False

    def run(self, command: bytes) -> Any:
        """Sends one command and returns its reply. See `round_trip`.

        :raises redis.exceptions.ResponseError: if Redis refuses the command.
        """
        (reply,) = self.round_trip([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _ready(self) -> Any:
        """Returns the connection, open."""
        connection, now = self._connection, time.monotonic()
        if connection is None:
            pool = self._pool()
            connection = self._connection = pool.connection_class(**pool.connection_kwargs)
        elif now - self._used_at > QUIET and not _is_clean(connection):
            connection.disconnect()
        self._used_at = now
        connection.connect()
        return connection

    def close(self) -> None:
        """Closes the connection. May be called twice."""
        if self._connection is not None:
            self._connection.disconnect()


def _exchange(connection: Any, commands: Sequence[bytes]) -> list[Any]:
    connection.send_packed_command([b"".join(commands)], check_health=False)
    return [_reply(connection) for _ in commands]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _is_clean(connection: Any) -> bool:
    """Whether the server has kept a connection open, and no reply is left from an earlier call."""
    try:
        return not connection.can_read(0)
    except (RedisError, OSError):
        return False


def command(count: int, *parts: bytes) -> bytes:
    """Returns a command as Redis reads it (RESP: an array of bulk strings).

    :param count: how many words the command has.
    :param parts: the words, packed with `packed`.
    """
    return b"*%d\r\n%b" % (count, b"".join(parts))


def packed(words: Iterable[bytes]) -> bytes:
    """Returns words of a command as Redis reads them (RESP: bulk strings)."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
