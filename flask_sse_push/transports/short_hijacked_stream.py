"""Short streams of the hijack transport; `short_stream` says when they end. While such a stream waits for its
first event, it keeps no greenlet busy."""

from __future__ import annotations

from ..hub.stream import Recipients
from .hijacked_stream import ChunkedStream, HijackedStream, RawStream


class ShortHijackedStream(HijackedStream):
    """A short stream that owns its connection once it has joined its group."""

    __slots__ = ()

    recipients = Recipients  # an array of descriptors would not end the streams

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        self.end(b"")

    def _send_first(self) -> None:
        super()._send_first()
        if self.answered:
            self.end(b"")

    def _set_write_fd(self, fd: int) -> None:
        self.write_fd = fd


class ShortChunkedStream(ShortHijackedStream, ChunkedStream):
    """A short stream whose response body is sent in HTTP/1.1 chunks."""

    __slots__ = ()


class ShortRawStream(ShortHijackedStream, RawStream):
    """A short stream over HTTP/1.0."""

    __slots__ = ()
