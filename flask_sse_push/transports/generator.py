"""The generator transport: the response body yields every chunk of the stream. Works on every WSGI server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..hub.stream import Stream
from .base import StreamFactory, TransportStream


class GeneratorTransport:
    """Serves any request. Each open stream keeps one of the server's threads or greenlets busy."""

    needs = "any connection"

    def __init__(self, leave: Callable[[Stream], None]) -> None:
        """Ignores `leave`, because the response body removes the stream from the hub when the stream ends."""

    def factory(self, environ: Mapping[str, Any], client: Any) -> StreamFactory:
        """See `base.Transport.factory`."""
        return GeneratorStream


class GeneratorStream(TransportStream):
    """A stream whose chunks wait in a list until the response body takes all of them at once."""

    __slots__ = ("_chunks", "_size", "_wake")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._chunks: list[bytes] = []
        self._size = 0  # number of bytes in `_chunks`
        self._wake = threading.Event()

    @property
    def buffered(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        if self._last_frame is not None:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._end_if_too_slow(self._size)
        self._wake.set()

    def _drop_waiting(self) -> None:
        self._chunks.clear()
        self._size = 0

    def end(self, frame: bytes) -> None:
        super().end(frame)
        self._wake.set()

    def take(self) -> bytes:
        while not self._chunks and self._last_frame is None:
            self._wake.wait()
            self._wake.clear()
        self._size = 0
        chunks, self._chunks = self._chunks, []
        if self._last_frame is not None:
            chunks.append(super().take())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
