"""Many hijacked connections that get the same chunk: the loop in which a worker spends most of its time."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ..hub.recipients import Recipients
from ..hub.stream import Stream

if TYPE_CHECKING:
    from .hijack import HijackedStream


class Descriptors(Recipients):
    """Connections, with their descriptors beside them.

    Writing to many looks at their sinks only when something is wrong: the kernel's work for one has pushed
    the next out of the processor's caches, and fetching it costs a tenth of the write.
    """

    __slots__ = ("_lent_at", "fds")

    #: Counts the descriptors that changed, in all audiences. One from before may be another connection's.
    changes = 0

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        super().__init__(streams)
        self.fds = array("i", [stream.fd for stream in cast("list[HijackedStream]", self.streams)])
        self._lent_at = 0

    def lend(self) -> Recipients:
        self._lent_at = Descriptors.changes
        return super().lend()

    def copy(self) -> Recipients:
        copy = Descriptors()
        copy.streams, copy.fds = self.streams.copy(), self.fds[:]
        return copy

    def add(self, stream: Stream) -> None:
        super().add(stream)
        self.fds.append(cast("HijackedStream", stream).fd)

    def remove(self, stream: Stream) -> None:
        super().remove(stream)
        last = self.fds.pop()
        if stream.place < len(self.fds):
            self.fds[stream.place] = last

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        if self._lent_at != Descriptors.changes:
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
            if self._lent_at != Descriptors.changes:
                super().write(chunk, place + 1, end)
                return

    def _stream(self, place: int) -> HijackedStream:
        return cast("HijackedStream", self.streams[place])
