"""The counters of one worker, for metrics and logs. Plain numbers: nothing is formatted here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .listener import StreamListener
from .stream import Stream

#: The reason in `closed` for a stream that the server did not close.
CLIENT = "client"


class CounterKey(NamedTuple):
    """The name of a counter; `label` tells its kinds apart, such as the reason of a close."""

    name: str
    label: str = ""


_OPENED, _PUBLISHED = CounterKey("opened"), CounterKey("published")
_REPLAYED, _REPLAYED_BYTES = CounterKey("replayed"), CounterKey("replayed_bytes")


class Counters(StreamListener):
    """Counts since the process began. Any thread may count; counting does not block."""

    def __init__(self) -> None:
        #: Called with the first count.
        self.on_first_count: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._counts: Counter[CounterKey] = Counter()
        # The dispatcher alone adds to these two, once for each group that an event goes to.
        self.delivered = 0  # events, each times the number of its streams
        self.sent = 0  # bytes written to streams by the fan-out

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Adds to one counter."""
        self._add(CounterKey(name, label), amount)

    def _add(self, key: CounterKey, amount: int) -> None:
        with self._lock:
            self._counts[key] += amount
        if self.on_first_count is not None:
            self._notify()

    def _notify(self) -> None:
        notify, self.on_first_count = self.on_first_count, None
        if notify is not None:
            notify()

    def opened(self, stream: Stream) -> None:
        self._add(_OPENED, 1)

    def closed(self, stream: Stream) -> None:
        self.count("closed", stream.reason or CLIENT)

    def lost(self, stream: Stream) -> None:
        self.count("resets")

    def published(self, events: int) -> None:
        """Adds events that this process published."""
        self._add(_PUBLISHED, events)

    def replayed(self, events: int, size: int) -> None:
        """Adds events that one stream had missed and was sent, and their bytes."""
        with self._lock:
            self._counts[_REPLAYED] += events
            self._counts[_REPLAYED_BYTES] += size

    def totals(self) -> dict[CounterKey, int]:
        """All counters that are not 0."""
        with self._lock:
            totals = dict(self._counts)
        fan_out = {CounterKey("delivered"): self.delivered, CounterKey("sent_bytes"): self.sent}
        return totals | {key: value for key, value in fan_out.items() if value}


class Gauges(NamedTuple):
    """The state of one worker at one moment."""

    streams: int = 0
    buffered: int = 0  # bytes that slow clients have not taken yet
    link_down: int = 0  # 1 while there are streams but no link to the broker
    reconnects: int = 0  # of the link, since the process began
    probe: float | None = None  # seconds from sending the last probe until its echo came
