"""Reads what arrives on the connection of a link: waits for bytes, and finds the messages in them.

redis-py can do both too, but takes more CPU time than all other work for an event: it reads each line of a
message apart, and starts a timer of gevent for each wait. So redis-py only connects and sends. Its option
`parser_class` tells this module the socket.
"""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from typing import Any

from redis import ConnectionPool
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

#: At most how many bytes are read in one go. With this size, even small messages nearly stay in `READ_ROOM`.
SIZE = 65_536
#: The longest beginning of a message, up to its content. The names of channels are much shorter.
MAX_HEAD = 8192

#: The beginning of a message of Redis's pub/sub. Its content follows, with as many bytes as the last number
#: says, and a line end.
_MESSAGE = re.compile(rb"\*3\r\n\$\d+\r\n(s?message)\r\n\$\d+\r\n([^\r]*)\r\n\$(\d{1,10})\r\n")
#: The reply to SUBSCRIBE or UNSUBSCRIBE, for each channel.
_CONFIRMATION = re.compile(rb"\*3\r\n\$\d+\r\n(s?(?:un)?subscribe)\r\n\$\d+\r\n([^\r]*)\r\n:\d+\r\n")
_ERROR = re.compile(rb"-([^\r]*)\r\n")

#: What Redis sends to subscribers: `message`, `subscribe` …, the pub/sub name, and the content.
Message = tuple[bytes, bytes, bytes]


class HandshakeParser(DefaultParser):  # type: ignore[misc,valid-type]
    """redis-py's parser, for the replies before a link subscribes. Then a `Receiver` reads the socket.

    :param sockets: a list, to which the parser appends the connection's socket.
    """

    def __init__(self, sockets: list[Any], socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._sockets = sockets

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)
        self._sockets.append(connection._sock)


def connect_link(pool: ConnectionPool, **changes: Any) -> tuple[Any, Receiver]:
    """Returns an open connection for a link, and what reads the connection.

    The connection does not come from the pool, because a pool would close it while the link reads.

    :param changes: options of the connection that differ from the pool's.
    :raises redis.exceptions.RedisError: if the server cannot be reached.
    """
    sockets: list[Any] = []
    options = {**pool.connection_kwargs, **changes, "parser_class": partial(HandshakeParser, sockets)}
    connection: Any = pool.connection_class(**options)
    connection.connect()
    return connection, receiver(sockets[-1])


class Messages:
    """Finds messages in the bytes that arrive. Keeps the beginning of a message until its rest arrives."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # the beginning of a message
        self._missing = 0  # at least how many more bytes the message needs

    def take(self, data: bytes) -> list[Message]:
        """Returns the messages that are complete with `data`, in order.

        :raises redis.exceptions.RedisError: if the server refused a command, or sends other bytes.
        """
        if self._begun:
            self._begun.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._begun)
            self._begun.clear()
        found: list[Message] = []
        at, size = 0, len(data)
        while at < size:
            head = _MESSAGE.match(data, at) or _CONFIRMATION.match(data, at)
            if head is None:
                _check_begin(data, at)
                self._keep(data[at:], 1)
                break
            begin = end = head.end()
            if head.re is _MESSAGE:
                end += int(head[3])
                if end + 2 > size:
                    self._keep(data[at:], end + 2 - size)
                    break
                at = end + 2
            else:
                at = end
            found.append((head[1], head[2], data[begin:end]))
        return found

    def _keep(self, begun: bytes, missing: int) -> None:
        self._begun.append(begun)
        self._missing = missing


def _check_begin(data: bytes, at: int) -> None:
    """Checks that a message can begin at the index `at`.

    :raises redis.exceptions.RedisError: if not: the server refused a command, or sends other bytes.
    """
    refusal = _ERROR.match(data, at)
    if refusal is not None:
        raise ResponseError(refusal[1].decode(errors="replace"))
    if data[at : at + 1] not in (b"*", b"-") or len(data) - at > MAX_HEAD:
        raise InvalidResponse(f"not a message of Redis's pub/sub: {data[at : at + 40]!r}")


class Receiver:
    """Waits for bytes on a blocking socket without gevent, or on a socket with TLS."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def receive(self, timeout: float) -> bytes:
        """Returns bytes that have arrived. Waits at most `timeout` seconds for the first; then returns b"".

        :raises OSError: if the connection is broken.
        :raises redis.exceptions.ConnectionError: if the server has closed it.
        """
        if self._socket.gettimeout() != timeout:
            self._socket.settimeout(timeout)
        try:
            return _not_closed(self._socket.recv(SIZE))
        except TimeoutError:
            return b""

    def close(self) -> None:
        """Frees what this receiver needs for waiting. Leaves the socket open. May be called twice."""


class GeventReceiver(Receiver):
    """Waits for bytes on a socket of gevent.

    To start a timer for each wait would take a third of the CPU time of an event. So one timer fires again
    and again. If it fires during a wait, the wait ends, perhaps early.
    """

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        from gevent import get_hub

        self._hub = get_hub()
        self._fd = socket.fileno()
        self._readable = self._hub.loop.io(self._fd, 1)
        self._timer: Any = None
        self._timeout = 0.0

    def receive(self, timeout: float) -> bytes:
        if timeout != self._timeout:
            self._start_timer(timeout)
        try:
            # Waits even if bytes are there, so that other greenlets run during a flood.
            self._hub.wait(self._readable)
            return _not_closed(os.read(self._fd, SIZE))
        except (_TimeOver, BlockingIOError):
            return b""

    def _start_timer(self, timeout: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timeout = timeout
        self._timer = self._hub.loop.timer(timeout, timeout)
        # Without `update`, the timer counts from the time at which gevent's loop last ran.
        self._timer.start(self._end_wait, update=True)

    def _end_wait(self) -> None:
        self._hub.cancel_wait(self._readable, _TimeOver)

    def close(self) -> None:
        self._readable.close()
        if self._timer is not None:
            self._timer.close()


class _TimeOver(Exception):
    """The timer fired while `receive` waited."""


def _not_closed(data: bytes) -> bytes:
    if not data:
        raise ConnectionError("Connection closed by server.")
    return data


def receiver(socket: Any) -> Receiver:
    """Returns a receiver for the socket of a connection. Call it in the thread that will read."""
    sockets = sys.modules.get("gevent.socket")
    is_plain = sockets is not None and type(socket) is sockets.socket
    return GeventReceiver(socket) if is_plain else Receiver(socket)
