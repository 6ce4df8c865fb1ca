"""The hijack transport: the socket is taken from gunicorn's gevent worker once the stream is live.

gunicorn writes status line and headers, the first chunk of the body goes out with them, and it is done with
the request: it frees the greenlet and the place in `worker_connections`. The connection lives on as a
descriptor that the dispatcher writes to.
One epoll watches all of them for clients that leave and for slow ones that can take more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, cast

import gevent
import gevent.socket

from ..config import Settings
from ..protocol.frames import close_frame
from .base import TransportStream
from .connections import ConnectionTable
from .descriptors import Descriptors

#: The descriptor of a sink that cannot be written to directly: the write fails and takes the longer way.
NOT_WRITABLE = -1
#: Bytes a client may send after its request; a well-behaved one sends none.
MAX_SENT = 65_536

#: What ends the head of a response.
HEAD_END = b"\r\n\r\n"


class HijackedStream(TransportStream):
    """One taken-over connection. Until it has joined, the response's generator serves it."""

    __slots__ = (
        "_backlog",
        "_connections",
        "_ending",
        "_fd",
        "_first",
        "_headless",
        "_sent",
        "_since",
        "_waiting",
        "fd",
    )

    holds_request = False
    recipients = Descriptors
    #: What ends the body.
    terminator = b""

    def __init__(
        self,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        settings: Settings,
        client: Any,
        connections: ConnectionTable,
    ) -> None:
        super().__init__(connection, user_id, channels, settings, client)
        self._connections = connections
        self.fd = NOT_WRITABLE  # where to write right away; see `_aim`
        self._fd = NOT_WRITABLE  # the connection
        self._backlog: list[bytes] | None = None
        self._waiting = 0  # bytes in the backlog
        self._since = 0.0  # since when the client has taken nothing
        self._ending = False
        self._first: bytes | None = None  # the body's first chunk, which goes out with the head
        self._headless = False  # the head of the response has not been sent: everything waits for it
        self._sent = 0  # bytes the client sent

    @property
    def hijacked(self) -> bool:
        return self._client is None

    @property
    def buffered(self) -> int:
        return self._waiting if self._backlog else 0

    def carry(self, opening: bytes) -> bool:
        if self._begun:  # then the head has been sent
            return False
        self._first = self.opened(opening)
        return True

    def join(self) -> None:
        first, self._first = self._first, None
        if first is None:
            self.fd = self._fd = self._connections.add(self, self._client, None)
        else:
            self._fd = self._connections.add(self, self._client, self._begin)
            chunk = self.framed(first)
            self._backlog, self._waiting, self._headless = [chunk], len(chunk), True
            self._since = time.monotonic()
        self._client = None

    def _begin(self, sent: bytes) -> None:
        """Sends what has waited for the head of the response. `sent` is what gunicorn would send: the head;
        the end of a body whose head has gone before; or nothing, when there will be none of them."""
        self._headless = False
        head, end, _ = sent.partition(HEAD_END)
        if not sent or self._backlog is None:  # given up, or closed meanwhile
            self.close()
            return
        if sent.startswith(b"HTTP/"):
            self._backlog[0] = head + end + self._backlog[0]
            self._waiting += len(head) + len(end)
        self._send_waiting()
        if self._backlog is not None:
            self._connections.want_room(self._fd, True)

    def _aim(self, fd: int) -> None:
        """Changes where to write right away."""
        self.fd = fd
        Descriptors.changes += 1
        if self.group is not None:
            cast("Descriptors", self.group.recipients).fds[self.place] = fd

    def write(self, chunk: bytes) -> None:
        try:
            sent = os.write(self.fd, chunk)
            if sent != len(chunk):
                self.keep(chunk[sent:])
        except OSError:
            self.write_late(chunk)

    def write_late(self, chunk: bytes) -> None:
        """Takes a chunk that could not be written: the client is slow, gone, or its stream has ended."""
        if self._fd == NOT_WRITABLE or self._ending:
            return
        self.keep(chunk)
        if self._waiting > self._settings.max_buffer:
            # The client resumes from its cursor: dropping the line is what bounds the memory.
            self._drop_backlog()
            self.reason = "slow"
            self.end(close_frame("slow", reconnect=True, retry=self._settings.retry))

    def keep(self, rest: bytes) -> None:
        """Lets bytes wait until the client has room for them."""
        if self._backlog is None:
            self._backlog = []
            self._since = time.monotonic()
            self._aim(NOT_WRITABLE)
            self._connections.want_room(self._fd, True)
        self._backlog.append(rest)
        self._waiting += len(rest)

    def _drop_backlog(self) -> None:
        """Drops what waits but for the rest of the chunk under way, without which the body would break."""
        if self.compression is not None:
            self.compression.whole = False
        if self._backlog:
            del self._backlog[1:]
            self._waiting = len(self._backlog[0])

    def flush(self) -> None:
        """Sends what waits, as far as the client takes it."""
        if not self._headless:
            self._send_waiting()
            if self.fd != NOT_WRITABLE:
                self._connections.want_room(self.fd, False)

    def _send_waiting(self) -> None:
        backlog = self._backlog or []
        while backlog:
            try:
                sent = os.write(self._fd, backlog[0])
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._since = time.monotonic()
            self._waiting -= sent
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            del backlog[0]
        self._backlog = None
        if self._ending:
            self.close()
        else:
            self._aim(self._fd)

    def end(self, frame: bytes) -> None:
        if not self.hijacked:
            super().end(frame)
            return
        if self._fd == NOT_WRITABLE or self._ending:
            return
        if self.compression is not None:
            self.compression.freeze()
            frame = self.compression.last(frame)
        self.keep((self.framed(frame) if frame else b"") + self.terminator)
        self._ending = True
        self.flush()

    def swallow(self, fd: int) -> bool:
        """Reads what the client sent and forgets it; False when it has left or sends too much."""
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._sent += len(data)
        return bool(data) and self._sent <= MAX_SENT

    def is_stuck(self, now: float) -> bool:
        if not self.hijacked:
            return super().is_stuck(now)
        return self._backlog is not None and now - self._since > self._settings.write_timeout

    def cut(self) -> None:
        if self.hijacked:
            self.close()
        else:
            super().cut()

    def close(self) -> None:
        """Breaks the connection off. A chunk on its way meets no number that may be another's by then."""
        fd, self._fd = self._fd, NOT_WRITABLE
        self._backlog = None
        if fd != NOT_WRITABLE:
            self._aim(NOT_WRITABLE)
            self._connections.close(self, fd)


class ChunkedStream(HijackedStream):
    """A connection whose body has HTTP/1.1 chunks."""

    __slots__ = ()

    terminator = b"0\r\n\r\n"

    @staticmethod
    def framed(frames: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(frames), frames)


class RawStream(HijackedStream):
    """A connection whose body ends with it: HTTP/1.0."""

    __slots__ = ()


_KINDS = {"HTTP/1.1": ChunkedStream, "HTTP/1.0": RawStream}


def stream_class(environ: Mapping[str, Any], client: Any) -> type[HijackedStream] | None:
    """How to take over the request's connection; None when it has TLS of ours or another protocol."""
    return _KINDS.get(environ["SERVER_PROTOCOL"]) if type(client) is gevent.socket.socket else None
