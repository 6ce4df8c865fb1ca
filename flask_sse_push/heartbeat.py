"""Heartbeats: when each stream is due for one, spread by a wheel of time slots, and what it says."""

from __future__ import annotations

from collections import defaultdict

from .cursor import Cursor
from .group import Group, heartbeat
from .sink import Sink
from .vector import Vector


class HeartbeatWheel:
    """Sinks by the time slot in which they are looked at next. Times are monotonic seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        #: Seconds of one slot: how late a heartbeat may be, and how often the wheel must be turned.
        self.slot = min(0.25, interval / 4)
        self._slots: defaultdict[int, list[Sink]] = defaultdict(list)
        self._next = 0

    def add(self, sink: Sink, silent_since: float) -> None:
        """Looks at `sink` again when it has been silent for the interval."""
        due = int((silent_since + self._interval) / self.slot)
        self._slots[max(due, self._next)].append(sink)

    def turn(self, now: float) -> list[Sink]:
        """Takes out the sinks whose slot has come."""
        current = int(now / self.slot)
        if not self._slots:
            self._next = current
            return []
        due: list[Sink] = []
        for slot in [slot for slot in self._slots if slot <= current]:
            due += self._slots.pop(slot)
        self._next = current + 1
        return due

    def silent_for(self, sink: Sink, now: float) -> bool:
        """Whether nothing has gone to `sink` for the interval, within the wheel's precision."""
        return now - silent_since(sink) >= self._interval - self.slot


class Heartbeats:
    """The heartbeat of the moment, made once for all streams of a kind."""

    def __init__(self) -> None:
        self._cursor: Cursor | Vector | None = None
        self._chunks: dict[type[Sink], bytes] = {}

    def chunk(self, group: Group) -> bytes:
        """A heartbeat with the current cursor: how far the worker has provably seen."""
        cursor = group.told()
        if cursor != self._cursor:
            self._cursor, self._chunks = cursor, {}
        if group.kind not in self._chunks:
            self._chunks[group.kind] = group.kind.framed(heartbeat(cursor))
        return self._chunks[group.kind]

    @staticmethod
    def frame(group: Group) -> bytes:
        """The same, for a stream that must have it as a chunk of its own."""
        return heartbeat(group.told())


def silent_since(sink: Sink) -> float:
    """When the last chunk went to `sink`, alone or with its group."""
    group = sink.group
    return max(sink.touched, group.touched) if group else sink.touched
