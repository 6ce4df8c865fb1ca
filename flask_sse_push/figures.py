"""What this worker counts of its streams, for metrics and logs. Plain numbers; nothing is formatted here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .observer import Observer
from .sink import Sink

#: Why a stream ended when nothing of ours ended it.
CLIENT = "client"


class Count(NamedTuple):
    """What is counted; `label` tells the kinds of it apart."""

    name: str
    label: str = ""


_OPENED = Count("opened")


class Figures(Observer):
    """Counts since the process began. Any thread may count; none blocks.

    What each event does is counted by the dispatcher alone, once for a group and a dispatch.

    `wake` is called with each count that is not the dispatcher's.
    """

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._counts: Counter[Count] = Counter()
        self.delivered = 0  # events, each times its streams
        self.sent = 0  # bytes of them, as they went to the streams

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Adds to one count."""
        self._add(Count(name, label), amount)

    def _add(self, count: Count, amount: int) -> None:
        with self._lock:
            self._counts[count] += amount
        self.wake()

    def opened(self, sink: Sink) -> None:
        self._add(_OPENED, 1)

    def closed(self, sink: Sink) -> None:
        self.count("closed", sink.reason or CLIENT)

    def lost(self, sink: Sink) -> None:
        self.count("resets")

    def published(self, events: int) -> None:
        """Notes events that this process published."""
        self.count("published", amount=events)

    def replayed(self, events: int, size: int) -> None:
        """Notes events, and their bytes, that one stream had missed and was sent."""
        with self._lock:
            self._counts[Count("replayed")] += events
            self._counts[Count("replayed_bytes")] += size

    def totals(self) -> dict[Count, int]:
        """All counts so far; only those that are not 0."""
        with self._lock:
            totals = dict(self._counts)
        fanned = {Count("delivered"): self.delivered, Count("sent_bytes"): self.sent}
        return totals | {count: value for count, value in fanned.items() if value}


class Levels(NamedTuple):
    """How things stand in this worker at one moment."""

    streams: int = 0
    buffered: int = 0  # bytes that wait for slow clients
    deaf: int = 0  # 1 while there are streams and no link to the broker
    reconnects: int = 0  # of the link, since the process began
    probe: float | None = None  # seconds the last probe took from this worker to the broker and back
