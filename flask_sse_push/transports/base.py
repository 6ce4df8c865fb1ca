"""The parts that all transports share: the response body, and the handling of slow clients."""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import logging
import socket
import sys
import termios
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

from ..brokers import forks
from ..config import Settings
from ..history.recovery_driver import Recovery
from ..hub.encoder import HEARTBEAT
from ..hub.latency import Timing
from ..hub.stream import Stream
from ..protocol.frames import comment, jittered_ms, retry_line
from .head import Obstacle
from .waiting import BrokerWait

logger = logging.getLogger(__name__)

#: Seconds between two checks of whether a stream that waits for the broker has ended. The time is short,
#: because a worker that stops ends all its streams within two seconds.
STEP = 0.25

_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # None outside Linux


#: A function that makes a stream. The parameters are those of `TransportStream`.
StreamFactory = Callable[[str, str | None, tuple[str, ...], Settings, Any], "TransportStream"]


class Transport(Protocol):
    """A way in which bytes reach a client's socket. Each worker process has one object of each transport."""

    @property
    def needs(self) -> str:
        """A description of the connections that this transport can serve, for error messages."""

    def factory(self, environ: Mapping[str, Any], client: Any, short: bool = False) -> StreamFactory | None:
        """Returns a function that makes the stream of a request; None if this transport cannot serve it.

        :param environ: the WSGI environment of the request.
        :param client: the client's socket; None if the WSGI server does not show it.
        :param short: whether the request asks for a short stream.
        """


class OpenStreams(Protocol):
    """The part of the hub that a response body uses."""

    def open(self, stream: Stream) -> None:
        """Registers an open stream. The caller must call `leave` when the stream has ended, or if this call
        raises."""

    def leave(self, stream: Stream) -> None:
        """Removes a stream that has ended."""

    @property
    def follow(self) -> Callable[[Stream, Recovery, float], bytes | None]:
        """Returns a function that makes the frames of the events that a stream missed.

        The function returns the next frames; b"" if the broker does not answer within the given seconds or
        the stream is ending; None once the stream has joined its group.
        """


class TransportStream(Stream):
    """A stream of a transport. Until the stream joins its group, the response body yields all chunks.

    :param connection: the id of the stream.
    :param client: the client's socket; None if the WSGI server does not show it.
    """

    __slots__ = (
        "_client",
        "_last_frame",
        "_read_at",
        "_retry_sent",
        "_settings",
        "_timing",
        "_unread",
        "retry",
        "waiting_since",
    )

    def __init__(
        self,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        settings: Settings,
        client: Any = None,
    ) -> None:
        super().__init__(connection, user_id, channels)
        self._settings = settings
        self._client = client
        self._last_frame: bytes | None = None  # None until the stream ends
        self.retry = settings.retry  # the mean reconnection time that the client gets first, in seconds
        self._retry_sent = False
        # Monotonic time since which the kernel has taken none of the waiting bytes; None if no bytes wait.
        self.waiting_since: float | None = None
        self._timing: Timing | None = None  # measures the chunk that waits, if any
        self._unread = 0  # result of `unread_bytes` at the last look
        self._read_at = 0.0  # monotonic time of the last look at which that number had changed; 0: never
        if client is not None:
            _limit_silence(client, settings.write_timeout + settings.heartbeat)

    @property
    def ended(self) -> bool:
        """Whether `end` was called. An ended stream sends at most its last frame."""
        return self._last_frame is not None

    def end(self, frame: bytes) -> None:
        if self._last_frame is None:
            self._last_frame = frame
            if self.compression is not None:
                self.compression.freeze()

    def take_place_of(self, other: TransportStream) -> None:
        """Makes this stream continue another stream, which has not opened yet and never will."""
        for name in Stream.__slots__:
            setattr(self, name, getattr(other, name))
        self._retry_sent, self.retry = other._retry_sent, other.retry
        other.reservation = None

    def refuse_handover(self, obstacle: Obstacle) -> None:
        """Makes the response body yield every chunk, because a hook or middleware must see the chunks."""

    # -- the response body ------------------------------------------------------------------------------

    def body(self, hub: OpenStreams, recovery: Recovery) -> Generator[bytes, None, None]:
        """Yields the response body: `sse.open`, the missed events, then live events until the stream ends.

        The stream is registered when the first chunk is requested. If the server never starts the body, as
        for a HEAD request, nothing has to be cleaned up.
        """
        try:
            hub.open(self)
            for chunk in chain(self._missed(hub, recovery), iter(self.take, b"")):
                self.waiting_since = time.monotonic()
                timing, self._timing = self._timing, None
                yield chunk  # the generator continues when the server has sent the chunk
                self.waiting_since = None
                if timing is not None:
                    timing.end()
            self.hang_up()
        finally:
            hub.leave(self)

    def _missed(self, hub: OpenStreams, recovery: Recovery) -> Iterator[bytes]:
        """Yields the chunks that the stream gets before it joins its group."""
        try:
            frames = hub.follow(self, recovery, 0)
            if frames is None:
                return
            yield self.first_chunk(frames or comment("looking up what was missed"))
            wait = BrokerWait(self._settings, self.poll)
            while not self.ended:
                frames = hub.follow(self, recovery, STEP)
                if frames is None:
                    return
                if frames:
                    wait.ended()
                elif wait.is_too_long(recovery):
                    self.reason = "busy"
                    self.end_with_reason("busy", reconnect=True, retry=self._settings.retry)
                    return
                else:
                    frames = wait.frames(recovery)
                    if frames and self.encoder is not None:
                        frames = HEARTBEAT
                if frames:
                    yield self.encoded(frames)
                if wait.is_over():
                    self.end(b"")
        finally:
            recovery.close()

    def first_chunk(self, frames: bytes) -> bytes:
        """Returns the chunk with the first frames of the stream. It also has the `retry:` line."""
        if not self._retry_sent:
            self._retry_sent = True
            if self.encoder is None:  # other formats have no reconnection time
                frames = retry_line(jittered_ms(self.retry)) + frames
        return frames if self.compression is None else self.compression.encode_alone(frames)

    def take(self) -> bytes:
        """Returns the next chunk to send; b"" once the response body is complete. May block."""
        last, self._last_frame = self._last_frame or b"", b""
        return last if self.compression is None else self.compression.last(last)

    # -- slow clients -----------------------------------------------------------------------------------

    def _end_if_too_slow(self, waiting: int) -> None:
        """Ends the stream if more than SSE_PUSH_MAX_BUFFER bytes wait for its client.

        The waiting bytes are dropped to save memory. The client gets `sse.close` with the reason `slow`,
        connects again with its cursor, and gets the missed events from the history.

        :param waiting: number of bytes that wait for the client.
        """
        if waiting > self._settings.max_buffer:
            self._drop_waiting()
            if self.compression is not None:
                self.compression.complete = False
            self.reason = "slow"
            self.end_with_reason("slow", reconnect=True, retry=self._settings.retry)

    def cut_if_stuck(self, now: float) -> bool:
        """Cuts the connection if its client has taken no byte for SSE_PUSH_WRITE_TIMEOUT seconds.

        A slow client may take bytes from the kernel long before the kernel takes more bytes of the stream.

        No `sse.close` is sent, because the client would not read it. The stream's reason is then `stuck`.
        Called by maintenance.
        """
        since = self.waiting_since
        if since is None:
            if self._read_at:
                self._read_at = 0.0
                self._limit_silence(self._settings.write_timeout + self._settings.heartbeat)
            return False
        unread = unread_bytes(self._descriptor)
        if unread != self._unread:
            if not self._read_at:  # the kernel would give up a client with a small window, whatever it reads
                self._limit_silence(0)
            self._unread, self._read_at = unread, now
        if now - max(since, self._read_at) <= self._settings.write_timeout:
            return False
        logger.info("cutting stream %s: its client reads nothing", self.connection)
        self.reason = "stuck"
        self.cut()
        return True

    @property
    def _descriptor(self) -> int:
        """The file descriptor of the connection; -1 if the WSGI server does not show it."""
        return -1 if self._client is None else int(self._client.fileno())

    def _limit_silence(self, seconds: float) -> None:
        with contextlib.suppress(OSError, ValueError):  # raised if the connection was closed in the meantime
            connection = _socket.socket(fileno=self._descriptor)
            _limit_silence(connection, seconds)
            connection.detach()

    def _drop_waiting(self) -> None:
        """Drops the bytes that wait for the client. The rest of a partly sent chunk stays."""

    # -- ending the connection --------------------------------------------------------------------------

    def cut(self) -> None:
        """Breaks the connection without a last frame. Does not block."""
        self.end(b"")
        self._shut(socket.SHUT_RDWR)  # a blocked send of the server then fails at once

    def hang_up(self) -> None:
        """Makes the server close the connection after the response, without waiting for another request."""
        self._shut(socket.SHUT_RD)

    def after_fork(self) -> None:
        if self._client is not None:
            forks.close_copy(self._client)

    def _shut(self, how: int) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(how)


def unread_bytes(descriptor: int) -> int:
    """Returns how many bytes the kernel still keeps for the other side of a connection.

    The other side has not confirmed these bytes. Returns 0 if the system cannot tell.
    """
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _limit_silence(client: Any, seconds: float) -> None:
    """Makes the kernel close the connection if the client's host does not answer for `seconds`.

    With 0, the kernel keeps the connection for a quarter of an hour. A client whose network comes back in
    time keeps its stream. If the host answers but the client does not read, `cut_if_stuck` cuts the
    connection earlier, and logs that.
    """
    if _USER_TIMEOUT is not None:
        try:  # noqa: SIM105 - each new stream calls this, and `contextlib.suppress` takes three times as long
            client.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))
        except (OSError, AttributeError):  # the socket is not TCP
            pass
