"""Who is told what happens to streams."""

from __future__ import annotations

from .sink import Sink


class Observer:
    """Is told what happens to streams. Called by any thread; must not block."""

    def opened(self, sink: Sink) -> None:
        """A stream began."""

    def closed(self, sink: Sink) -> None:
        """A stream ended."""

    def changed(self, sink: Sink, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        """A stream changed its channels."""

    def lost(self, sink: Sink) -> None:
        """Events were lost for a stream: it is being told `sse.reset`."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._openers = [each.opened for each in observers if type(each).opened is not Observer.opened]

    def opened(self, sink: Sink) -> None:
        for opened in self._openers:
            opened(sink)

    def closed(self, sink: Sink) -> None:
        for observer in self._observers:
            observer.closed(sink)

    def changed(self, sink: Sink, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        for observer in self._observers:
            observer.changed(sink, joined, left)

    def lost(self, sink: Sink) -> None:
        for observer in self._observers:
            observer.lost(sink)
