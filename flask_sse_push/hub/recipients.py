"""Who gets a chunk: sinks of one kind that are written to in one go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stream import Stream


class Recipients:
    """The sinks of one group, or of one delivery to several.

    One that is *lent* to a delivery, which may still be under way, does not change any more: its group goes
    on with a copy. So an event costs no look at each sink, and a chunk goes to those of its moment.
    """

    __slots__ = ("lent", "streams")

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        self.streams = list(streams)
        self.lent = False

    def __len__(self) -> int:
        return len(self.streams)

    def lend(self) -> Recipients:
        """Itself, for a delivery."""
        self.lent = True
        return self

    def copy(self) -> Recipients:
        """The same sinks, not lent."""
        return type(self)(self.streams)

    def add(self, stream: Stream) -> None:
        """Takes `sink` in."""
        stream.place = len(self.streams)
        self.streams.append(stream)

    def remove(self, stream: Stream) -> None:
        """Takes `sink` out at the cost of one swap, however many there are."""
        last = self.streams.pop()
        if last is not stream:
            self.streams[stream.place] = last
            last.place = stream.place

    def write(self, chunk: bytes, begin: int, end: int) -> None:
        """Writes one framed chunk to the sinks from one place up to another."""
        for stream in self.streams[begin:end]:
            stream.write(chunk)
