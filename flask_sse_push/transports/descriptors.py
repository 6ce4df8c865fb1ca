"""Writes a chunk to an array of file descriptors. A busy worker spends most of its time in this loop."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ..hub.stream import Recipients, Stream

if TYPE_CHECKING:
    from .hijacked_stream import HijackedStream


class Descriptors(Recipients):
    """A list of hijacked streams, and an array of their file descriptors in the same order.

    The loop that writes a chunk needs a stream object only if its write fails. This saves a tenth of the time
    of each write: after the kernel's work for one connection, the next stream object is no longer in the
    processor's caches.
    """

    __slots__ = ("_changes_when_shared", "fds")

    #: How often a descriptor was replaced in any array of this process. After a replacement, an array
    #: that a delivery shares may contain a descriptor that now belongs to another connection.
    changes = 0

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        super().__init__(streams)
        self.fds = array("i", [stream.write_fd for stream in cast("list[HijackedStream]", self.streams)])
        self._changes_when_shared = 0

    @property
    def is_outdated(self) -> bool:
        return self._changes_when_shared != Descriptors.changes

    def share(self) -> Recipients:
        self._changes_when_shared = Descriptors.changes
        self.shared = True
        return self

    def copy(self) -> Recipients:
        copy = Descriptors()
        copy.streams, copy.fds = self.streams.copy(), self.fds[:]
        return copy

    def add(self, stream: Stream) -> None:
        super().add(stream)
        self.fds.append(cast("HijackedStream", stream).write_fd)

    def extend(self, others: Recipients) -> None:
        self.streams += others.streams
        self.fds += cast("Descriptors", others).fds

    def remove(self, stream: Stream) -> None:
        super().remove(stream)
        last = self.fds.pop()
        if stream.index < len(self.fds):
            self.fds[stream.index] = last

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        """See `Recipients.write`. If a descriptor has changed since `share`, calls `write` of each stream."""
        if self._changes_when_shared != Descriptors.changes:
            super().write(chunk, begin, end)
            return
        write, size = os.write, len(chunk)
        for place, fd in enumerate(self.fds[begin:end], begin):
            try:
                if (sent := write(fd, chunk)) == size:
                    continue
                self._stream(place).keep(chunk[sent:])
            except OSError:
                self._stream(place).write_late(chunk)
            if self._changes_when_shared != Descriptors.changes:
                super().write(chunk, place + 1, end)
                return

    def _stream(self, place: int) -> HijackedStream:
        return cast("HijackedStream", self.streams[place])
