"""Streams that get the same bytes: an event is put together once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .brokers.base import Entry
from .cursor import Cursor
from .sink import Sink
from .wire import control

Chunks = dict[tuple[type[Sink], bytes, tuple[int, ...], tuple[str, ...] | None], bytes]


class Group:
    """The sinks of one kind that joined one set of channels.

    :param tagged: whether each event names its channels.
    """

    __slots__ = ("channels", "kind", "last", "pending", "sinks", "tagged", "touched")

    def __init__(self, channels: tuple[str, ...], kind: type[Sink], tagged: bool = False) -> None:
        self.channels = channels
        self.kind = kind
        self.tagged = tagged
        self.sinks: list[Sink] = []
        self.last = 0  # id of the newest entry put together for the group
        self.pending: list[Entry] = []  # entries of the dispatch under way
        self.touched = 0.0  # monotonic time of the last chunk

    def add(self, sink: Sink) -> None:
        """Lets `sink` take part from the next chunk on."""
        sink.group = self
        sink.subscribed = self.channels  # one tuple for all of them
        sink.place = len(self.sinks)
        self.sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        """Takes `sink` out at the cost of one swap, however many there are."""
        last = self.sinks.pop()
        if last is not sink:
            self.sinks[sink.place] = last
            last.place = sink.place
        sink.group = None

    def offer(self, entry: Entry) -> bool:
        """Notes an entry for the chunk being made; returns whether it is the first one.

        An event in several of the group's channels comes once for each, with the same id: one is kept.
        """
        if entry.id <= self.last:
            return False
        self.last = entry.id
        self.pending.append(entry)
        return len(self.pending) == 1

    def delivery(self, now: float, made: Chunks, notice: bytes = b"") -> Delivery:
        """What is pending, as one chunk for the sinks of this moment; `notice` goes first.

        :param made: chunks of this dispatch: groups that get the same events share one.
        """
        entries, self.pending = self.pending, []
        self.touched = now
        key = (
            self.kind,
            notice,
            tuple([entry.id for entry in entries]),
            self.channels if self.tagged else None,
        )
        chunk = made.get(key)
        if chunk is None:
            if self.tagged:
                frames = notice + b"".join([entry.tagged(self.channels) for entry in entries])
            else:
                frames = notice + b"".join([entry.frame for entry in entries])
            chunk = made[key] = self.kind.framed(frames)
        limited = entries if any(entry.exclude for entry in entries) else ()
        return Delivery(self.kind, tuple(self.sinks), chunk, limited, notice)


class Delivery(NamedTuple):
    """One chunk on its way to the sinks that were in the group when it was made."""

    kind: type[Sink]
    sinks: tuple[Sink, ...]
    chunk: bytes
    limited: Sequence[Entry]  # the entries again, when some are not for everybody
    notice: bytes

    def write(self, sinks: Sequence[Sink]) -> None:
        """Writes the chunk to some of the sinks; without the events that one is excluded from."""
        if not self.limited:
            self.kind.write_all(sinks, self.chunk)
            return
        for sink in sinks:
            sink.write(self.kind.framed(self.notice + frames_for(sink, self.limited)))


def frames_for(sink: Sink, entries: Iterable[Entry]) -> bytes:
    """The frames of `entries`. One that is not for `sink` becomes a heartbeat: its cursor moves on."""
    return b"".join(_frame_for(sink, entry) for entry in entries)


def _frame_for(sink: Sink, entry: Entry) -> bytes:
    if sink.is_excluded(entry.exclude):
        return heartbeat(Cursor(entry.epoch, entry.id))
    return entry.tagged(sink.subscribed) if sink.tagged else entry.frame


def heartbeat(cursor: Cursor) -> bytes:
    """An event, not a comment: page script sees it, and Firefox takes an id only with data."""
    return control("sse.heartbeat", {}, str(cursor))
