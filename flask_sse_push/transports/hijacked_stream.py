"""A stream that takes its connection from gunicorn's gevent worker when the stream joins its group.

gunicorn then finishes the request: its greenlet ends, and the request no longer counts against
`worker_connections`. The connection stays open as a file descriptor that the dispatcher writes to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from typing import Any, cast

from ..history.recovery_driver import Recovery
from ..hub.compression import EMPTY_BLOCK
from ..hub.latency import Timing
from ..hub.stream import Recipients
from ..protocol.frames import comment, jittered_ms, retry_line
from .base import OpenStreams, TransportStream, unread_bytes
from .connections import ConnectionTable
from .descriptors import Descriptors
from .fallback import fallback_body
from .handover import Handover
from .head import Obstacle, report
from .hijacked_socket import NO_DESCRIPTOR

#: A client may send at most this many bytes after its request. A correct client sends none.
MAX_INPUT = 65_536

_CONSEQUENCE = (
    "let responses with the mimetype text/event-stream pass unchanged; such a stream uses the generator "
    "transport, and keeps one of gunicorn's worker_connections busy until it ends"
)


class HijackedStream(TransportStream):
    """A stream that owns its connection once it has joined its group.

    Its response body yields only the beginning of the stream. If these bytes reach the socket unchanged,
    after a fitting head, the stream sends the rest itself. If not, a `GeneratorStream` takes its place.
    """

    __slots__ = (
        "_backlog",
        "_begin",
        "_connections",
        "_ending",
        "_first_chunk",
        "_half_closed",
        "_handover",
        "_received",
        "_socket_fd",
        "_waiting",
        "write_fd",
    )

    holds_request = False
    recipients: type[Recipients] = Descriptors
    #: Whether the response body is sent in HTTP/1.1 chunks.
    chunked = False
    #: The bytes that end the response body.
    terminator = b""

    def __init__(self, *args: Any, connections: ConnectionTable) -> None:
        super().__init__(*args)
        self._connections = connections
        self._handover = Handover(self._client, chunked=self.chunked)
        self._begin = b""  # what the response body has yielded, while the handover holds it back
        # The descriptor of the connection; NO_DESCRIPTOR before the hijack and after the close.
        self._socket_fd = NO_DESCRIPTOR
        # The descriptor that chunks are written to: `_socket_fd`, but NO_DESCRIPTOR while there is a backlog.
        self.write_fd = NO_DESCRIPTOR
        self._backlog: list[bytes] | None = None  # bytes that wait for the client; None if no bytes wait
        self._waiting = 0  # number of bytes in the backlog
        self._ending = False  # whether the backlog contains the end of the response body
        self._first_chunk: bytes | None = None  # the chunk that the stream sends just after it has joined
        self._received = 0  # number of bytes that the client sent after its request
        self._half_closed = False  # whether the client has said that it sends nothing more

    @property
    def hijacked(self) -> bool:
        """Whether the stream owns the connection."""
        return self._client is None

    @property
    def buffered(self) -> int:
        return self._waiting if self._backlog else 0

    # -- taking the connection -------------------------------------------------------------------------

    def refuse_handover(self, obstacle: Obstacle) -> None:
        self._handover.refuse(obstacle)

    def body(self, hub: OpenStreams, recovery: Recovery) -> Generator[bytes, None, None]:
        handover = self._handover
        begin = self._begin = self._first_bytes()
        handover.expect(begin, None if self.compression is None else b"gzip")
        try:
            yield begin
        except BaseException:
            hub.leave(self)
            handover.end()
            raise
        if handover.obstacle is not None:
            report(handover.obstacle.kind, f"{handover.obstacle.found}; {_CONSEQUENCE}")
            yield from fallback_body(self, handover, len(begin), hub, recovery)
            return
        try:
            hub.open(self)
            yield from self._send_missed(hub, recovery)
        except BaseException:
            if self.hijacked:  # nothing else would send the first chunk
                self.close()
            raise
        finally:
            if not self.hijacked:
                hub.leave(self)

    def _first_bytes(self) -> bytes:
        """Returns the first bytes of the response body. The stream yields them before it calls the broker."""
        if self.compression is not None:
            return self.compression.header()
        self._retry_sent = True
        if self.encoder is not None:
            return comment("")
        return retry_line(jittered_ms(self.retry))

    def _send_missed(self, hub: OpenStreams, recovery: Recovery) -> Iterator[bytes]:
        """Sends all chunks until the stream has joined its group. Yields only the end of the response body.

        Nothing is yielded if the stream has joined, because the stream then sends the rest itself.
        """
        for chunk in self._missed(hub, recovery):
            data = self._next(chunk)
            self.waiting_since = time.monotonic()
            try:
                self._client.sendall(data)
            except OSError:  # the client has left
                return
            self.waiting_since = None
        if self.hijacked:
            self._send_first()
        else:  # the stream was ended before it could join
            yield self.take()
            self.hang_up()

    def _next(self, chunk: bytes) -> bytes:
        """Returns a framed chunk. Before the first chunk come the head and the beginning of the body."""
        head, begin, self._begin = self._handover.take_head(), self._begin, b""
        return head + self.framed(begin + chunk)

    def send_after_join(self, frames: bytes) -> bool:
        self._first_chunk = self.first_chunk(frames)
        return True

    def join(self) -> None:
        first, self._first_chunk = self._first_chunk, None
        chunk = None if first is None else self._next(first)
        self._socket_fd = self._connections.add(self, self._client)
        self._client = None
        del self._handover  # frees gunicorn's socket object
        if chunk is None:
            self.write_fd = self._socket_fd
        else:
            self._backlog, self._waiting = [chunk], len(chunk)
            self.waiting_since = time.monotonic()

    def _send_first(self) -> None:
        """Sends what the stream got when it joined: the head of the response and the first chunk."""
        if self._backlog is not None:
            self._send_backlog()
        if self._backlog is not None:
            self._watch(writable=True)

    def _watch(self, *, writable: bool) -> None:
        self._connections.watch(self._socket_fd, readable=not self._half_closed, writable=writable)

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
            self._unread = unread_bytes(self._socket_fd)
            self._watch(writable=True)
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
        self._send_backlog()
        if self.write_fd != NO_DESCRIPTOR:
            self._watch(writable=False)

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
            if self._timing is not None:
                self._note_sent(self._timing, sent)
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            del backlog[0]
        self._backlog = self.waiting_since = None
        if self._ending:
            self.close()
        else:
            self._set_write_fd(self._socket_fd)

    def time(self, timing: Timing) -> None:
        if self._backlog:
            self._timing, timing.left = timing, self._waiting
        else:
            timing.end()

    def _note_sent(self, timing: Timing, sent: int) -> None:
        timing.left -= sent
        if timing.left <= 0:
            self._timing = None
            timing.end()

    def _drop_waiting(self) -> None:
        """Drops the backlog, except for its first chunk, which may be partly sent.

        Without the rest of that chunk the client could not read the end of the body.
        """
        if self._backlog:
            del self._backlog[1:]
            self._timing = None
            self._waiting = len(self._backlog[0])

    @property
    def _descriptor(self) -> int:
        return self._socket_fd if self.hijacked else super()._descriptor

    def discard_input(self, fd: int) -> bool:
        """Reads and drops bytes from the client. Returns False if the client has left or sends too much."""
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            self._note_half_close()
        self._received += len(data)
        return self._received <= MAX_INPUT

    def _note_half_close(self) -> None:
        """Goes on with a client that sends nothing more, and finds out whether it still reads.

        The FIN of TCP does not tell whether a client has left, or has only closed its side (`nc -N`, some
        proxies). The host of a client that has left answers the next bytes with a RST.
        """
        self._half_closed = True
        self._watch(writable=self._backlog is not None)
        if not self._ending:
            probe = self.framed(comment("") if self.compression is None else EMPTY_BLOCK)
            HijackedStream.write(self, probe)  # a short stream would end

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

    chunked = shows_cut = True
    terminator = b"0\r\n\r\n"

    @staticmethod
    def framed(frames: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(frames), frames)


class RawStream(HijackedStream):
    """A hijacked stream over HTTP/1.0: the response body ends when the connection is closed."""

    __slots__ = ()
