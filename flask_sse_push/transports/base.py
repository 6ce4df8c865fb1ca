"""What both transports share: one generator, which serves a stream until it has joined its group."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from ..config import Settings
from ..errors import ErrorCode
from ..history.recovery import Recovery
from ..hub.hub import Hub
from ..hub.stream import Stream
from ..protocol.frames import comment, error_frame, jittered_ms, retry_line

#: Seconds until a stream that waits for a silent broker is told so.
PATIENCE = 2.0
#: Seconds after which a waiting stream looks whether it is to end: a worker stops in two.
STEP = 0.25

_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it


class TransportStream(Stream):
    """A stream that a generator serves while it catches up."""

    __slots__ = ("_begun", "_client", "_last", "_settings", "_writing")

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
        self._client = client  # the socket, where the server shows it
        self._last: bytes | None = None  # the frame that ends the stream
        self._begun = False  # whether the body's first chunk was made
        self._writing: float | None = None  # since when the server has been sending a chunk
        _bound_silence(client, settings.write_timeout + settings.heartbeat)

    @property
    def ended(self) -> bool:
        """Whether nothing but the last frame will follow."""
        return self._last is not None

    @property
    def hijacked(self) -> bool:
        """Whether the connection is ours now and the response is over."""
        return False

    def end(self, frame: bytes) -> None:
        if self._last is None:
            self._last = frame
            if self.compression is not None:
                self.compression.freeze()

    def opened(self, frames: bytes) -> bytes:
        """The first chunk of the body, which is to have these frames."""
        self._begun = True
        return self.encoded(retry_line(jittered_ms(self._settings.retry)) + frames)

    def take(self) -> bytes:
        """The next chunk to send; b"" when the stream has ended and all was taken. May block."""
        last, self._last = self._last or b"", b""
        return last if self.compression is None else self.compression.last(last)

    def sending(self, chunk: bytes) -> Iterator[bytes]:
        """Yields `chunk`, and knows meanwhile that the client is being waited for."""
        self._writing = time.monotonic()
        yield chunk
        self._writing = None

    def is_stuck(self, now: float) -> bool:
        return self._writing is not None and now - self._writing > self._settings.write_timeout

    def cut(self) -> None:
        self.end(b"")
        self._shut(socket.SHUT_RDWR)  # frees the server's blocked send at once

    def hang_up(self) -> None:
        """Lets the server close the connection after the body, instead of waiting for another request."""
        self._shut(socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(how)


def _bound_silence(client: Any, seconds: float) -> None:
    """Lets the kernel end a connection whose client vanished without a word.

    Otherwise it sends again for a quarter of an hour. A client that is there and does not read is cut by us
    before, without a word in the log; one that is back from a tunnel soon goes on.
    """
    if _USER_TIMEOUT is not None and client is not None:
        with contextlib.suppress(OSError, AttributeError):  # not over TCP
            client.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))


def response_body(
    hub: Hub, stream: TransportStream, recovery: Recovery, settings: Settings
) -> Iterator[bytes]:
    """The response body: the opening, what was missed, then live frames until the stream ends.

    A hijacking sink takes the connection over when it joins, and the body simply ends. When all that was
    missed fits into the first chunk, it joins with that, and the body is empty. Nothing is registered
    before the first step, so a body that never starts (HEAD) leaves nothing behind.
    """
    hub.open(stream)
    try:
        at_hand = hub.follow(stream, recovery, 0)
        if at_hand is not None:
            yield from stream.sending(stream.opened(at_hand or comment("looking up what was missed")))
            yield from _catch_up(hub, stream, recovery, settings)
        if not stream.hijacked:
            while chunk := stream.take():
                yield from stream.sending(chunk)
            stream.hang_up()
    finally:
        if not stream.hijacked:
            hub.leave(stream)


def _catch_up(hub: Hub, stream: TransportStream, recovery: Recovery, settings: Settings) -> Iterator[bytes]:
    due = time.monotonic() + PATIENCE
    told = False
    while not stream.ended:
        frames = hub.follow(stream, recovery, STEP)
        if frames is None:
            return
        if not frames:
            if time.monotonic() < due:
                continue
            frames = _waiting(told)
            told, due = True, time.monotonic() + settings.heartbeat
        yield from stream.sending(stream.encoded(frames))


def _waiting(told: bool) -> bytes:
    if told:
        return comment("waiting for the broker")
    message = "the broker does not answer; the stream begins as soon as it does"
    return error_frame(ErrorCode.SERVICE_UNAVAILABLE, message)
