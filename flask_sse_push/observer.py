"""Who is told what happens to streams."""

from __future__ import annotations

from .sink import Sink


class Observer:
    """Is told what happens to streams. Called by any thread; must not block."""

    def opened(self, sink: Sink) -> None:
        """A stream began."""

    def closed(self, sink: Sink) -> None:
        """A stream ended."""

    def lost(self, sink: Sink) -> None:
        """Events were lost for a stream: it is being told `sse.reset`."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def opened(self, sink: Sink) -> None:
        for observer in self._observers:
            observer.opened(sink)

    def closed(self, sink: Sink) -> None:
        for observer in self._observers:
            observer.closed(sink)

    def lost(self, sink: Sink) -> None:
        for observer in self._observers:
            observer.lost(sink)
