"""Measures how long events take from the broker to the sockets of this worker, for a sample of the events."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..brokers.tracing import Tracing
from ..history.shards import Shards
from ..protocol.entry import Entry
from .group import Delivery

if TYPE_CHECKING:
    from .counters import Counters
    from .stream import Stream

#: At least this many seconds lie between two events that a worker measures.
INTERVAL = 0.25


class Timing:
    """The time that one event takes to one socket.

    :param begun: monotonic time at which the broker stored the event.
    :param note: gets the seconds when the event's last byte was written.
    """

    __slots__ = ("_begun", "_note", "left")

    def __init__(self, begun: float, note: Callable[[float], None]) -> None:
        self._begun = begun
        self._note = note
        self.left = 0  # how many bytes a hijacked stream must still write, up to the end of the event

    def end(self) -> None:
        """Notes the time until now. The event's last byte was handed to the kernel just now."""
        self._note(max(0.0, time.monotonic() - self._begun))


class Sample(NamedTuple):
    """A delivery that is measured, and one of its streams."""

    delivery: Delivery
    stream: Stream
    place: int  # the stream's index among the recipients
    timing: Timing

    def is_written(self, delivery: Delivery, end: int) -> bool:
        """Begins to wait for the socket if the stream has just got its chunk. Returns whether it has.

        :param end: how many recipients of `delivery` have got the chunk.
        """
        if delivery is not self.delivery or end <= self.place:
            return False
        self.stream.time(self.timing)
        return True


class Latency:
    """Picks the events that a worker measures: at most one in `INTERVAL` seconds.

    Missed events are not measured, because they are no deliveries.
    """

    def __init__(self, shards: Shards, counters: Counters) -> None:
        self._shards = shards
        self._counters = counters

    def pick(self, steps: Sequence[object]) -> Sample | None:
        """Returns one of the deliveries in `steps`, to be measured. Returns None if there is none to measure.

        Leaves out deliveries with an event that excludes streams: the chosen stream might not get this event.
        """
        found = [step for step in steps if isinstance(step, Delivery) and step.is_alike and step.entries]
        if not found:
            return None
        delivery = random.choice(found)
        entry = random.choice(delivery.entries)
        begun = self._shards.stored_at(entry)
        if begun is None:
            return None
        now = time.monotonic()
        self._counters.measure_at = now + INTERVAL
        place = random.randrange(len(delivery.recipients.streams))
        return Sample(
            delivery, delivery.recipients.streams[place], place, Timing(begun, self._counters.written.append)
        )


def trace_delivered(tracing: Tracing, shards: Shards) -> None:
    """Makes a span for each traced event that the dispatcher has just written to the streams of this worker.

    An event on several channels of the worker gets one span. Bytes that still wait for slow clients, or for a
    batch, are not part of the span.
    """
    traced = {entry.position: entry for shard in shards.all for entry in _taken(shard.history_cache.traced)}
    for entry in traced.values():
        stored_at = shards.stored_at(entry)
        begin = entry.id / 1e6 if stored_at is None else time.time() - (time.monotonic() - stored_at)
        attributes: dict[str, str | int] = {
            "sse.id": entry.cursor,
            "sse.channel": entry.channels[0],
            "process.pid": os.getpid(),
        }
        tracing.delivered((entry.traceparent or b"").decode(), begin, attributes)


def _taken(entries: deque[Entry]) -> Iterator[Entry]:
    while entries:
        yield entries.popleft()
