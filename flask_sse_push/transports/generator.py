"""The generator transport: the response body yields frames to the end. Works on every WSGI server."""

from __future__ import annotations

import threading
from typing import Any

from ..config import Settings
from ..protocol.frames import close_frame
from .base import TransportStream


class GeneratorStream(TransportStream):
    """Chunks wait in a list, at most `max_buffer` bytes, until the generator takes them all at once."""

    __slots__ = ("_chunks", "_size", "_wake")

    def __init__(
        self,
        connection: str,
        user_id: str | None,
        channels: tuple[str, ...],
        settings: Settings,
        client: Any = None,
    ) -> None:
        super().__init__(connection, user_id, channels, settings, client)
        self._chunks: list[bytes] = []
        self._size = 0
        self._wake = threading.Event()

    @property
    def buffered(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        if self._last is not None:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._settings.max_buffer:
            # The client resumes from its cursor: dropping the line is what bounds the memory.
            self._chunks.clear()
            self.reason = "slow"
            if self.compression is not None:
                self.compression.whole = False
            super().end(close_frame("slow", reconnect=True, retry=self._settings.retry))
        self._wake.set()

    def end(self, frame: bytes) -> None:
        super().end(frame)
        self._wake.set()

    def take(self) -> bytes:
        while not self._chunks and self._last is None:
            self._wake.wait()
            self._wake.clear()
        self._size = 0
        chunks, self._chunks = self._chunks, []
        if self._last is not None:
            chunks.append(super().take())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
