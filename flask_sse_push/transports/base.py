"""What all transports share: the response body, and what happens to a client that reads too slowly."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

from ..config import Settings
from ..errors import ErrorCode
from ..history.recovery import Recovery
from ..hub.stream import Stream
from ..protocol.frames import close_frame, comment, error_frame, jittered_ms, retry_line

logger = logging.getLogger(__name__)

#: Seconds that a new stream waits for the broker before its client gets `sse.error`.
BROKER_TIMEOUT = 2.0
#: Seconds between two checks whether a stream that waits for the broker has ended. A worker that stops ends
#: all its streams within two seconds.
STEP = 0.25

_NO_ANSWER = "the broker does not answer; the stream begins as soon as it does"
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it


#: Makes a stream; the arguments are those of `TransportStream`.
StreamFactory = Callable[[str, str | None, tuple[str, ...], Settings, Any], "TransportStream"]


class Transport(Protocol):
    """One way in which bytes reach a client's socket. Made once per worker process."""

    @property
    def needs(self) -> str:
        """The kind of connection that this transport can serve, for error messages."""

    def factory(self, environ: Mapping[str, Any], client: Any) -> StreamFactory | None:
        """Returns what makes the stream of a request; None if this transport cannot serve the request.

        :param client: the client's socket; None where the WSGI server does not show it.
        """


class OpenStreams(Protocol):
    """The part of the hub that a response body uses."""

    def open(self, stream: Stream) -> None:
        """Adds a stream to the open ones. `leave` must follow."""

    def leave(self, stream: Stream) -> None:
        """Removes a stream."""

    @property
    def follow(self) -> Callable[[Stream, Recovery, float], bytes | None]:
        """Returns the next frames that a stream missed; None when it has joined its group."""


class TransportStream(Stream):
    """A stream whose chunks come from the response body until it has joined its group.

    :param connection: id of the stream.
    :param client: the client's socket; None where the WSGI server does not show it.
    """

    __slots__ = ("_client", "_last_frame", "_settings", "_started", "waiting_since")

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
        self._last_frame: bytes | None = None  # None: the stream has not ended
        self._started = False  # whether `first_chunk` was called
        self.waiting_since: float | None = None  # since when bytes wait and the client has taken none
        if client is not None:
            _limit_silence(client, settings.write_timeout + settings.heartbeat)

    @property
    def ended(self) -> bool:
        """Whether `end` was called: only the last frame may follow."""
        return self._last_frame is not None

    @property
    def hijacked(self) -> bool:
        """Whether the stream owns the connection, so that the response body has nothing left to send."""
        return False

    def end(self, frame: bytes) -> None:
        if self._last_frame is None:
            self._last_frame = frame
            if self.compression is not None:
                self.compression.freeze()

    # -- for the response body -------------------------------------------------------------------------

    def first_chunk(self, frames: bytes) -> bytes:
        """Returns the first chunk of the body: the `retry:` line and `frames`."""
        self._started = True
        frames = retry_line(jittered_ms(self._settings.retry)) + frames
        return frames if self.compression is None else self.compression.encode_alone(frames)

    def take(self) -> bytes:
        """Returns the next chunk to send; b"" once the body is complete. May block."""
        last, self._last_frame = self._last_frame or b"", b""
        return last if self.compression is None else self.compression.last(last)

    # -- the slow-client policy, for all transports ------------------------------------------------------

    def _end_if_too_slow(self, waiting: int) -> None:
        """Ends the stream if more than SSE_PUSH_MAX_BUFFER bytes wait for its client.

        The bytes are dropped, which bounds the worker's memory. The client gets `sse.close` with the reason
        `slow`, connects again with its cursor, and gets the events it missed from the history.

        :param waiting: number of bytes that wait.
        """
        if waiting > self._settings.max_buffer:
            self._drop_waiting()
            if self.compression is not None:
                self.compression.complete = False
            self.reason = "slow"
            self.end(close_frame("slow", reconnect=True, retry=self._settings.retry))

    def cut_if_stuck(self, now: float) -> bool:
        """Cuts the connection if its client has taken no byte for SSE_PUSH_WRITE_TIMEOUT seconds.

        Such a client cannot be sent an `sse.close`. The reason is `stuck`. Called by maintenance.
        """
        since = self.waiting_since
        if since is None or now - since <= self._settings.write_timeout:
            return False
        logger.info("cutting stream %s: its client takes nothing", self.connection)
        self.reason = "stuck"
        self.cut()
        return True

    def _drop_waiting(self) -> None:
        """Drops the bytes that wait for the client, as far as the body stays readable without them."""

    # -- ending the connection --------------------------------------------------------------------------

    def cut(self) -> None:
        """Breaks the connection off, without a last frame. Does not block."""
        self.end(b"")
        self._shut(socket.SHUT_RDWR)  # frees the server's blocked send at once

    def hang_up(self) -> None:
        """Makes the server close the connection after the body, instead of waiting for another request."""
        self._shut(socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(how)


def _limit_silence(client: Any, seconds: float) -> None:
    """Makes the kernel close the connection when the client's host has not answered for `seconds`.

    Without it the kernel sends again for a quarter of an hour. A client that is there but does not read is
    cut earlier, by `cut_if_stuck`, which is logged. A client that comes out of a tunnel in time keeps
    its stream.
    """
    if _USER_TIMEOUT is not None:
        with contextlib.suppress(OSError, AttributeError):  # not over TCP
            client.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))


def response_body(
    hub: OpenStreams, stream: TransportStream, recovery: Recovery, settings: Settings
) -> Iterator[bytes]:
    """Yields the response body: `sse.open`, the missed events, then live events until the stream ends.

    A hijacked stream takes the connection when it joins its group, and the body ends there. If the first
    chunk holds all missed events, such a stream sends that chunk itself, and the body is empty. Nothing is
    registered before the first step, so a body that is never started (HEAD) leaves nothing behind.
    """
    hub.open(stream)
    try:
        for chunk in chain(_missed(hub, stream, recovery, settings), iter(stream.take, b"")):
            stream.waiting_since = time.monotonic()
            yield chunk  # the server asks for the next one when it has sent this one
            stream.waiting_since = None
        if not stream.hijacked:
            stream.hang_up()
    finally:
        if not stream.hijacked:
            hub.leave(stream)


def _missed(
    hub: OpenStreams, stream: TransportStream, recovery: Recovery, settings: Settings
) -> Iterator[bytes]:
    """Yields the chunks that a stream gets before it joins its group."""
    frames = hub.follow(stream, recovery, 0)
    if frames is None:
        return
    yield stream.first_chunk(frames or comment("looking up what was missed"))
    deadline = time.monotonic() + BROKER_TIMEOUT
    reported = False
    while not stream.ended:
        frames = hub.follow(stream, recovery, STEP)
        if frames is None:
            return
        if not frames:
            if time.monotonic() < deadline:
                continue
            if reported:
                frames = comment("waiting for the broker")
            else:
                frames = error_frame(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER)
            reported, deadline = True, time.monotonic() + settings.heartbeat
        yield stream.encoded(frames)
