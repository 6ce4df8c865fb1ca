"""What this worker counts of its streams, for metrics and logs. Plain numbers; nothing is formatted here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .listener import StreamListener
from .stream import Stream

#: Why a stream ended when nothing of ours ended it.
CLIENT = "client"


class CounterKey(NamedTuple):
    """What is counted; `label` tells the kinds of it apart."""

    name: str
    label: str = ""


_OPENED = CounterKey("opened")


class Counters(StreamListener):
    """Counts since the process began. Any thread may count; none blocks.

    What each event does is counted by the dispatcher alone, once for a group and a dispatch.

    `on_first_count` is called once, after the first count that is not the dispatcher's.
    """

    def __init__(self) -> None:
        self.on_first_count: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._counts: Counter[CounterKey] = Counter()
        self.delivered = 0  # events, each times its streams
        self.sent = 0  # bytes of them, as they went to the streams

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Adds to one count."""
        self._add(CounterKey(name, label), amount)

    def _add(self, count: CounterKey, amount: int) -> None:
        with self._lock:
            self._counts[count] += amount
            first, self.on_first_count = self.on_first_count, None
        if first is not None:
            first()

    def opened(self, stream: Stream) -> None:
        self._add(_OPENED, 1)

    def closed(self, stream: Stream) -> None:
        self.count("closed", stream.reason or CLIENT)

    def lost(self, stream: Stream) -> None:
        self.count("resets")

    def published(self, events: int) -> None:
        """Notes events that this process published."""
        self.count("published", amount=events)

    def replayed(self, events: int, size: int) -> None:
        """Notes events, and their bytes, that one stream had missed and was sent."""
        with self._lock:
            self._counts[CounterKey("replayed")] += events
            self._counts[CounterKey("replayed_bytes")] += size

    def totals(self) -> dict[CounterKey, int]:
        """All counts so far; only those that are not 0."""
        with self._lock:
            totals = dict(self._counts)
        fanned = {CounterKey("delivered"): self.delivered, CounterKey("sent_bytes"): self.sent}
        return totals | {count: value for count, value in fanned.items() if value}


class Gauges(NamedTuple):
    """How things stand in this worker at one moment."""

    streams: int = 0
    buffered: int = 0  # bytes that wait for slow clients
    link_down: int = 0  # 1 while there are streams and no link to the broker
    reconnects: int = 0  # of the link, since the process began
    probe: float | None = None  # seconds the last probe took from this worker to the broker and back
