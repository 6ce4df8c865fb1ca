"""Many hijacked connections that get the same chunk: the loop in which a worker spends most of its time."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ..audience import Audience
from ..sink import Sink

if TYPE_CHECKING:
    from .hijack import HijackSink


class HijackAudience(Audience):
    """Connections, with their descriptors beside them.

    Writing to many looks at their sinks only when something is wrong: the kernel's work for one has pushed
    the next out of the processor's caches, and fetching it costs a tenth of the write.
    """

    __slots__ = ("_lent_at", "fds")

    #: Counts the descriptors that changed, in all audiences. One from before may be another connection's.
    changes = 0

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        super().__init__(sinks)
        self.fds = array("i", [sink.fd for sink in cast("list[HijackSink]", self.sinks)])
        self._lent_at = 0

    def lend(self) -> Audience:
        self._lent_at = HijackAudience.changes
        return super().lend()

    def copy(self) -> Audience:
        copy = HijackAudience()
        copy.sinks, copy.fds = self.sinks.copy(), self.fds[:]
        return copy

    def add(self, sink: Sink) -> None:
        super().add(sink)
        self.fds.append(cast("HijackSink", sink).fd)

    def remove(self, sink: Sink) -> None:
        super().remove(sink)
        last = self.fds.pop()
        if sink.place < len(self.fds):
            self.fds[sink.place] = last

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        if self._lent_at != HijackAudience.changes:
            super().write(chunk, begin, end)
            return
        write, size = os.write, len(chunk)
        for place, fd in enumerate(self.fds[begin:end], begin):
            try:
                if (sent := write(fd, chunk)) == size:
                    continue
                self._sink(place).keep(chunk[sent:])
            except OSError:
                self._sink(place).write_late(chunk)
            if self._lent_at != HijackAudience.changes:
                super().write(chunk, place + 1, end)
                return

    def _sink(self, place: int) -> HijackSink:
        return cast("HijackSink", self.sinks[place])
