"""Listeners are called when a stream opens, closes, changes its channels or loses events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from .stream import Stream

Channels = tuple[str, ...]


class StreamListener:
    """Base class of listeners. Override the methods that you need; the hub calls only overridden methods.

    Any thread may call the methods, without the hub's lock. The methods must not block.
    """

    def first_opened(self) -> None:
        """Called when a stream opens and the worker has no other open stream."""

    def opened(self, stream: Stream) -> None:
        """Called when a stream has opened, before it receives its first bytes."""

    def opened_with_grant(self, stream: Stream) -> None:
        """Called when a stream with a `grant` has opened.

        A `grant` is a permission to listen that may change while the stream is open.
        """

    def closed(self, stream: Stream) -> None:
        """Called when a stream has closed."""

    def changed(self, stream: Stream, joined: Channels, left: Channels) -> None:
        """Called when a stream has joined or left channels."""

    def lost(self, stream: Stream) -> None:
        """Called when events were lost for a stream. The stream gets an `sse.reset`."""


class Listeners:
    """For each method of `StreamListener`, the list of bound methods that override it."""

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

    def tell_closed(self, stream: Stream) -> None:
        """Calls the `closed` method of all listeners, also if one of the calls is interrupted."""
        with contextlib.ExitStack() as calls:
            for closed in reversed(self.closed):
                calls.callback(closed, stream)

    def tell_changed(self, stream: Stream, joined: Channels, left: Channels) -> None:
        """Calls the `changed` method of all listeners."""
        for changed in self.changed:
            changed(stream, joined, left)

    def tell_lost(self, stream: Stream) -> None:
        """Notes the time at which the stream lost events, and calls the `lost` method of all listeners."""
        stream.lost_at = time.time()
        for lost in self.lost:
            lost(stream)
