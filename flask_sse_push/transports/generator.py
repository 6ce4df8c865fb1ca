"""The generator transport: a WSGI response body that yields frames. Works on every WSGI server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..config import Settings
from ..drain import close_frame
from ..errors import ErrorCode, error_body
from ..hub import Hub
from ..resume import Resume
from ..sink import Sink
from ..wire import comment, control, jittered_ms, retry_line

#: Seconds until a stream that waits for a silent broker is told so.
PATIENCE = 2.0


class GeneratorSink(Sink):
    """Chunks wait in a list, at most `max_buffer` bytes, until the generator takes them all at once."""

    __slots__ = (
        "_chunks",
        "_last",
        "_max_buffer",
        "_retry",
        "_size",
        "_socket",
        "_timeout",
        "_wake",
        "_writing",
    )

    def __init__(
        self,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        settings: Settings,
        client: socket.socket | None = None,
    ) -> None:
        super().__init__(connection, user_id, channels)
        self._max_buffer = settings.max_buffer
        self._timeout = settings.write_timeout
        self._retry = settings.retry
        self._socket = client
        self._chunks: list[bytes] = []
        self._size = 0
        self._last: bytes | None = None  # the frame that ends the stream
        self._wake = threading.Event()
        self._writing: float | None = None  # since when the server has been sending a chunk

    @property
    def ended(self) -> bool:
        """Whether nothing but the last frame will follow."""
        return self._last is not None

    def write(self, chunk: bytes) -> None:
        if self._last is not None:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._max_buffer:
            # The client resumes from its cursor: dropping the line is what bounds the memory.
            self._chunks.clear()
            self._last = close_frame("slow", reconnect=True, retry=self._retry)
        self._wake.set()

    def end(self, frame: bytes) -> None:
        if self._last is None:
            self._last = frame
            self._wake.set()

    def take(self) -> bytes:
        """Waits for chunks and returns them as one; b"" when the stream has ended and all was taken."""
        while not self._chunks and self._last is None:
            self._wake.wait()
            self._wake.clear()
        self._size = 0
        chunks, self._chunks = self._chunks, []
        if self._last:
            chunks.append(self._last)
            self._last = b""
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def sending(self, chunk: bytes) -> Iterator[bytes]:
        """Yields `chunk`, and knows meanwhile that the client is being waited for."""
        self._writing = time.monotonic()
        yield chunk
        self._writing = None

    def is_stuck(self, now: float) -> bool:
        return self._writing is not None and now - self._writing > self._timeout

    def cut(self) -> None:
        self.end(b"")
        self._shut(socket.SHUT_RDWR)  # frees the server's blocked send at once

    def hang_up(self) -> None:
        """Lets the server close the connection after the body, instead of waiting for another request."""
        self._shut(socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(how)


def stream(hub: Hub, sink: GeneratorSink, resume: Resume, settings: Settings) -> Iterator[bytes]:
    """The response body: the opening, what was missed, then live frames until the stream ends.

    Nothing is registered before the first step, so a body that never starts (HEAD) leaves nothing behind.
    """
    hub.open(sink, resume)
    try:
        yield from sink.sending(retry_line(jittered_ms(settings.retry)) + _first_frames(hub, sink, resume))
        yield from _catch_up(hub, sink, resume, settings)
        while chunk := sink.take():
            yield from sink.sending(chunk)
        sink.hang_up()
    finally:
        hub.leave(sink, resume)


def _first_frames(hub: Hub, sink: GeneratorSink, resume: Resume) -> bytes:
    """What is at hand already: most streams open with their first chunk."""
    return hub.follow(sink, resume, 0) or b""


def _catch_up(hub: Hub, sink: GeneratorSink, resume: Resume, settings: Settings) -> Iterator[bytes]:
    patience = PATIENCE
    told = False
    while not sink.ended:
        frames = hub.follow(sink, resume, patience)
        if frames is None:
            return
        if not frames:
            frames = _waiting(told)
            told, patience = True, settings.heartbeat
        yield from sink.sending(frames)


def _waiting(told: bool) -> bytes:
    if told:
        return comment("waiting for the broker")
    message = "the broker does not answer; the stream begins as soon as it does"
    return control("sse.error", error_body(ErrorCode.SERVICE_UNAVAILABLE, message))


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket, where the server shows it: gunicorn, and Flask's development server."""
    return environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
