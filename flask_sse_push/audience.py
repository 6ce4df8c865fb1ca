"""Who gets a chunk: sinks of one kind that are written to in one go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sink import Sink


class Audience:
    """The sinks of one group, or of one delivery to several.

    One that is *lent* to a delivery, which may still be under way, does not change any more: its group goes
    on with a copy. So an event costs no look at each sink, and a chunk goes to those of its moment.
    """

    __slots__ = ("lent", "sinks")

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self.sinks = list(sinks)
        self.lent = False

    def __len__(self) -> int:
        return len(self.sinks)

    def lend(self) -> Audience:
        """Itself, for a delivery."""
        self.lent = True
        return self

    def copy(self) -> Audience:
        """The same sinks, not lent."""
        return type(self)(self.sinks)

    def add(self, sink: Sink) -> None:
        """Takes `sink` in."""
        sink.place = len(self.sinks)
        self.sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        """Takes `sink` out at the cost of one swap, however many there are."""
        last = self.sinks.pop()
        if last is not sink:
            self.sinks[sink.place] = last
            last.place = sink.place

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        """Writes one framed chunk to the sinks from one place up to another."""
        for sink in self.sinks[begin:end]:
            sink.write(chunk)
