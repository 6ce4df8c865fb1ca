"""Who is told what happens to streams."""

from __future__ import annotations

from .stream import Stream


class StreamListener:
    """Is told what happens to streams. Called by any thread; must not block."""

    def opened(self, stream: Stream) -> None:
        """A stream began."""

    def closed(self, stream: Stream) -> None:
        """A stream ended."""

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        """A stream changed its channels."""

    def lost(self, stream: Stream) -> None:
        """Events were lost for a stream: it is being told `sse.reset`."""


class StreamListeners(StreamListener):
    """Tells several."""

    def __init__(self, *listeners: StreamListener) -> None:
        self._listeners = listeners
        self._openers = [each.opened for each in listeners if type(each).opened is not StreamListener.opened]

    def opened(self, stream: Stream) -> None:
        for opened in self._openers:
            opened(stream)

    def closed(self, stream: Stream) -> None:
        for listener in self._listeners:
            listener.closed(stream)

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        for listener in self._listeners:
            listener.changed(stream, joined, left)

    def lost(self, stream: Stream) -> None:
        for listener in self._listeners:
            listener.lost(stream)
