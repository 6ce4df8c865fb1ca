"""A stream that takes its connection from gunicorn's gevent worker when the stream joins its group.

gunicorn then finishes the request: its greenlet ends, and the request no longer counts against
`worker_connections`. The connection stays open as a file descriptor that the dispatcher writes to.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

from .base import TransportStream
from .connections import ConnectionTable
from .descriptors import Descriptors
from .hijacked_socket import NO_DESCRIPTOR

#: A client may send at most this many bytes after its request. A correct client sends none.
MAX_INPUT = 65_536

#: The bytes that end the head of a response.
HEAD_END = b"\r\n\r\n"


class HijackedStream(TransportStream):
    """A stream that owns its connection once it has joined its group.

    Until then the response body yields the chunks of the stream.
    """

    __slots__ = (
        "_awaits_head",
        "_backlog",
        "_connections",
        "_ending",
        "_first_chunk",
        "_received",
        "_socket_fd",
        "_waiting",
        "write_fd",
    )

    holds_request = False
    recipients = Descriptors
    #: The bytes that end the response body.
    terminator = b""

    def __init__(self, *args: Any, connections: ConnectionTable) -> None:
        super().__init__(*args)
        self._connections = connections
        # The descriptor of the connection; NO_DESCRIPTOR before the hijack and after the close.
        self._socket_fd = NO_DESCRIPTOR
        # The descriptor that chunks are written to: `_socket_fd`, but NO_DESCRIPTOR while there is a backlog.
        self.write_fd = NO_DESCRIPTOR
        self._backlog: list[bytes] | None = None  # bytes that wait for the client; None if no bytes wait
        self._waiting = 0  # number of bytes in the backlog
        self._ending = False  # whether the backlog contains the end of the response body
        # The first chunk, if it is sent together with the head of the response; else None.
        self._first_chunk: bytes | None = None
        self._awaits_head = False  # whether the backlog must wait until gunicorn sends the head
        self._received = 0  # number of bytes that the client sent after its request

    @property
    def hijacked(self) -> bool:
        return self._client is None

    @property
    def buffered(self) -> int:
        return self._waiting if self._backlog else 0

    def take(self) -> bytes:
        return b"" if self.hijacked else super().take()

    # -- taking the connection -------------------------------------------------------------------------

    def send_after_join(self, frames: bytes) -> bool:
        if self._started:  # the response body has begun, so gunicorn has sent the head
            return False
        self._first_chunk = self.first_chunk(frames)
        return True

    def join(self) -> None:
        first, self._first_chunk = self._first_chunk, None
        if first is None:
            self.write_fd = self._socket_fd = self._connections.add(self, self._client, None)
        else:
            self._socket_fd = self._connections.add(self, self._client, self._send_with_head)
            chunk = self.framed(first)
            self._backlog, self._waiting, self._awaits_head = [chunk], len(chunk), True
            self.waiting_since = time.monotonic()
        self._client = None

    def _send_with_head(self, sent: bytes) -> None:
        """Sends the head of the response, then the backlog.

        :param sent: the next bytes that gunicorn sends. Usually they are the head. If a middleware has made
            gunicorn send the head before, they are the end of the body, which is dropped. b"" means that
            gunicorn closed the socket.
        """
        self._awaits_head = False
        if not sent or self._backlog is None:  # no backlog: the stream was closed
            self.close()
            return
        if sent.startswith(b"HTTP/"):
            # Bytes after the head would end the body, so they are dropped.
            fields, separator, _ = sent.partition(HEAD_END)
            self._backlog[0] = fields + separator + self._backlog[0]
            self._waiting += len(fields) + len(separator)
        self._send_backlog()
        if self._backlog is not None:
            self._connections.watch_writable(self._socket_fd, True)

    # -- called by the dispatcher ---------------------------------------------------------------------

    def write(self, chunk: bytes) -> None:
        try:
            sent = os.write(self.write_fd, chunk)
            if sent != len(chunk):
                self.keep(chunk[sent:])
        except OSError:
            self.write_late(chunk)

    def write_late(self, chunk: bytes) -> None:
        """Keeps a chunk that the socket did not take. Drops the chunk if the stream has ended.

        Ends the stream if its client is too slow.
        """
        if self._socket_fd == NO_DESCRIPTOR or self._ending:
            return
        self.keep(chunk)
        self._end_if_too_slow(self._waiting)

    def keep(self, rest: bytes) -> None:
        """Adds bytes to the backlog. The backlog is sent when the client can take more bytes."""
        if self._backlog is None:
            self._backlog = []
            self.waiting_since = time.monotonic()
            self._set_write_fd(NO_DESCRIPTOR)
            self._connections.watch_writable(self._socket_fd, True)
        self._backlog.append(rest)
        self._waiting += len(rest)

    def _set_write_fd(self, fd: int) -> None:
        """Sets the descriptor that chunks are written to, here and in the array of the stream's group."""
        self.write_fd = fd
        Descriptors.changes += 1
        if self.group is not None:
            cast("Descriptors", self.group.recipients).fds[self.index] = fd

    # -- the backlog --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends as much of the backlog as the client takes. Called when the client can take more bytes."""
        if not self._awaits_head:
            self._send_backlog()
            if self.write_fd != NO_DESCRIPTOR:
                self._connections.watch_writable(self.write_fd, False)

    def _send_backlog(self) -> None:
        backlog = self._backlog or []
        while backlog:
            try:
                sent = os.write(self._socket_fd, backlog[0])
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self.waiting_since = time.monotonic()
            self._waiting -= sent
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            del backlog[0]
        self._backlog = self.waiting_since = None
        if self._ending:
            self.close()
        else:
            self._set_write_fd(self._socket_fd)

    def _drop_waiting(self) -> None:
        """Drops the backlog, except for its first chunk, which may be partly sent.

        Without the rest of that chunk the client could not read the end of the body.
        """
        if self._backlog:
            del self._backlog[1:]
            self._waiting = len(self._backlog[0])

    def discard_input(self, fd: int) -> bool:
        """Reads and drops bytes from the client. Returns False if the client has left or sends too much."""
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += len(data)
        return bool(data) and self._received <= MAX_INPUT

    # -- the end of the stream --------------------------------------------------------------------------

    def end(self, frame: bytes) -> None:
        if not self.hijacked:
            super().end(frame)
            return
        if self._socket_fd == NO_DESCRIPTOR or self._ending:
            return
        if self.compression is not None:
            self.compression.freeze()
            frame = self.compression.last(frame)
        self.keep((self.framed(frame) if frame else b"") + self.terminator)
        self._ending = True
        self.flush()

    def cut(self) -> None:
        if self.hijacked:
            self.close()
        else:
            super().cut()

    def close(self) -> None:
        """Closes the connection. Later writes fail, even if another connection gets the same descriptor."""
        fd, self._socket_fd = self._socket_fd, NO_DESCRIPTOR
        self._backlog = self.waiting_since = None
        if fd != NO_DESCRIPTOR:
            self._set_write_fd(NO_DESCRIPTOR)
            self._connections.close(self, fd)


class ChunkedStream(HijackedStream):
    """A hijacked stream whose response body is sent in HTTP/1.1 chunks."""

    __slots__ = ()

    terminator = b"0\r\n\r\n"

    @staticmethod
    def framed(frames: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(frames), frames)


class RawStream(HijackedStream):
    """A hijacked stream over HTTP/1.0: the response body ends when the connection is closed."""

    __slots__ = ()
