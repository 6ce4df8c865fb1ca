"""Listeners are called when a stream opens, closes, changes its channels or loses events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .stream import Stream

Channels = tuple[str, ...]


class StreamListener:
    """Override the methods that you need: the hub calls no others.

    Any thread may call them, without the hub's lock. They must not block.
    """

    def first_opened(self) -> None:
        """Called when a stream opens while the worker has no other."""

    def opened(self, stream: Stream) -> None:
        """A stream opened. It has not received anything yet."""

    def opened_with_grant(self, stream: Stream) -> None:
        """A stream opened that has a `grant`, so its right to listen may change while it is open."""

    def closed(self, stream: Stream) -> None:
        """A stream closed."""

    def changed(self, stream: Stream, joined: Channels, left: Channels) -> None:
        """A stream joined and left channels."""

    def lost(self, stream: Stream) -> None:
        """Events were lost for a stream. It gets an `sse.reset`."""


class Listeners:
    """The methods that listeners override, as lists of bound methods for the hub to call."""

    def __init__(self, listeners: Iterable[StreamListener]) -> None:
        listeners = list(listeners)

        def methods(name: str) -> list[Any]:
            base = getattr(StreamListener, name)
            return [getattr(each, name) for each in listeners if getattr(type(each), name) is not base]

        self.first_opened: list[Callable[[], None]] = methods("first_opened")
        self.opened: list[Callable[[Stream], None]] = methods("opened")
        self.opened_with_grant: list[Callable[[Stream], None]] = methods("opened_with_grant")
        self.closed: list[Callable[[Stream], None]] = methods("closed")
        self.changed: list[Callable[[Stream, Channels, Channels], None]] = methods("changed")
        self.lost: list[Callable[[Stream], None]] = methods("lost")

    def tell_changed(self, stream: Stream, joined: Channels, left: Channels) -> None:
        """Calls all `changed` methods."""
        for changed in self.changed:
            changed(stream, joined, left)

    def tell_lost(self, stream: Stream) -> None:
        """Calls all `lost` methods."""
        for lost in self.lost:
            lost(stream)
