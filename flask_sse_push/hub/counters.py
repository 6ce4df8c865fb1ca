"""The counters of one worker, for metrics and logs. Other modules format the numbers."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..brokers import native_threads
from . import tallies
from .listener import StreamListener
from .stream import Stream

#: The label of the counter `closed` for streams that the client closed.
CLIENT = "client"
#: At most this many measured times of each kind wait to be exported. Then the oldest ones are dropped.
MAX_TIMES = 1000


class CounterKey(NamedTuple):
    """The name of a counter, and a label such as the reason why a stream closed; most labels are empty."""

    name: str
    label: str = ""


_OPENED, _PUBLISHED = CounterKey("opened"), CounterKey("published")
_REPLAYED, _REPLAYED_BYTES = CounterKey("replayed"), CounterKey("replayed_bytes")


class Counters(StreamListener):
    """The counters of one worker since its start. Any thread may call the methods. They never block."""

    def __init__(self) -> None:
        #: Called once, when a counter is increased for the first time.
        self.on_first_count: Callable[[], None] | None = None
        self._lock = native_threads.lock()
        self._counts: Counter[CounterKey] = Counter()
        # Only the dispatcher adds to `delivered` and `sent`, so they need no lock.
        self.delivered = 0  # events sent to streams; an event sent to 5 streams adds 5
        self.sent = 0  # bytes that the dispatcher wrote to streams
        #: Monotonic time from which on the next event is measured; never, if nobody exports the times.
        self.measure_at = math.inf
        #: How many seconds events took from the broker to a socket: the newest times that were not exported.
        self.written: deque[float] = deque(maxlen=MAX_TIMES)
        #: How many seconds events took from the broker to a page, as browser clients report.
        self.handled: deque[float] = deque(maxlen=MAX_TIMES)

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Adds `amount` to the counter with this name and label."""
        self._add(CounterKey(name, label), amount)

    def _add(self, key: CounterKey, amount: int) -> None:
        with self._lock:
            self._counts[key] += amount
        if self.on_first_count is not None:
            self._notify()

    def want_times(self) -> None:
        """Makes the worker measure events from now on, because somebody exports the times."""
        self.measure_at = min(self.measure_at, time.monotonic())

    def add_handled(self, times: Iterable[float]) -> None:
        """Adds what a browser client has measured: how many seconds events took to the page."""
        self.handled.extend(times)
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
        """Adds to the number of events that this process published."""
        self._add(_PUBLISHED, events)

    def replayed(self, events: int, size: int) -> None:
        """Adds to the number of missed events that were sent to streams, and to the number of their bytes."""
        with self._lock:
            self._counts[_REPLAYED] += events
            self._counts[_REPLAYED_BYTES] += size

    def totals(self) -> dict[CounterKey, int]:
        """The values of all counters that are not 0. Takes over what the process has in `tallies`."""
        taken = tallies.take()
        with self._lock:
            for (name, label), amount in taken.items():
                self._counts[CounterKey(name, label)] += amount
            totals = dict(self._counts)
        fan_out = {CounterKey("delivered"): self.delivered, CounterKey("sent_bytes"): self.sent}
        return totals | {key: value for key, value in fan_out.items() if value}


class Gauges(NamedTuple):
    """The state of one worker at one moment."""

    streams: int = 0
    buffered: int = 0  # bytes that wait in this process for slow clients
    link_down: int = 0  # 1 if there are streams but no link to the broker; else 0
    reconnects: int = 0  # how often the link connected again since the process began
    probe: float | None = None  # seconds from sending the last probe until its echo came
    recheck_lag: float = 0.0  # how late the oldest waiting check of a stream's rights is, in seconds
