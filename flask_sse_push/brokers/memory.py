"""The broker for one process: the same promises, kept in memory. Nothing survives the process."""

from __future__ import annotations

import heapq
import queue
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from itertools import islice

from ..errors import BrokerUnavailable
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry, Publication, stored_form
from .base import (
    Bounds,
    Broker,
    ChannelHistory,
    Echo,
    History,
    Link,
    LinkMessage,
    LiveEvent,
    Subscribed,
    channel_history,
)
from .counts import MemoryCounts

#: Answers remembered for idempotency ids; the oldest goes first.
MAX_REMEMBERED = 10_000
#: Signals waiting for a reader. Beyond, the link breaks, as Redis cuts a subscriber that does not read.
MAX_UNREAD = 100_000


class MemoryBroker(Broker):
    """Lists in a dict under one lock, which makes each step atomic."""

    def __init__(self, bounds: Bounds, epoch: str | None = None) -> None:
        self.counts = MemoryCounts()
        self._bounds = bounds
        self._lock = threading.Lock()
        self._epoch = epoch or secrets.token_hex(4)
        self._last = 0
        self._horizon = 0
        self._heads: OrderedDict[str, int] = OrderedDict()  # the longest quiet channel first
        self._lists: dict[str, deque[bytes]] = {}
        self._ears: dict[str, list[MemoryLink]] = {}
        self._links: dict[str, MemoryLink] = {}
        self._answers: OrderedDict[str, list[Cursor]] = OrderedDict()
        self._claims: list[tuple[float, str]] = []  # a heap: when each claim ends
        self._claimed: set[str] = set()

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        with self._lock:
            if once is not None and once in self._answers:
                return self._answers[once]
            cursors = [self._store(publication) for publication in publications]
            self._forget_quiet()
            if once is not None:
                self._answers[once] = cursors
                if len(self._answers) > MAX_REMEMBERED:
                    self._answers.popitem(last=False)
            return cursors

    def _store(self, publication: Publication) -> Cursor:
        id = self._next_id()
        for name in publication.lists:
            stored = stored_form(self._epoch, id, self._heads.get(name, -self._horizon), publication)
            self._lists.setdefault(name, deque(maxlen=self._bounds.size)).append(stored)
            self._heads[name] = id
            self._heads.move_to_end(name)
            for link in self._ears.get(name, ()):
                link.hear(LiveEvent(name, stored))
        return Cursor(self._epoch, id)

    def _next_id(self) -> int:
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    def _forget_quiet(self) -> None:
        """Drops the history of channels quiet for too long; the horizon says up to where."""
        quiet = self._last - round(self._bounds.ttl * 1_000_000)
        while self._heads:
            name, head = next(iter(self._heads.items()))
            if head > quiet:
                return
            self._horizon = max(self._horizon, quiet)
            del self._heads[name], self._lists[name]

    def heads(self, most: int) -> dict[str, int]:
        with self._lock:
            self._forget_quiet()
            return dict(islice(reversed(self._heads.items()), most))

    def history(self, after: Mapping[str, int], inbox: str) -> History:
        with self._lock:
            last = self._next_id()
            self._forget_quiet()
            if inbox in self._links:
                self._links[inbox].hear(Echo(self._epoch, last))
            return History(self._epoch, last, {name: self._past(name, at) for name, at in after.items()})

    def _past(self, name: str, after: int) -> ChannelHistory:
        entries: list[Entry] = []
        for stored in reversed(self._lists.get(name, ())):
            entries.append(Entry.parse(stored, name))
            if entries[-1].id <= after:
                break
        entries.reverse()
        return channel_history(after, entries, self._heads.get(name, 0), self._horizon)

    def link(self, inbox: str) -> Link:
        with self._lock:
            link = self._links[inbox] = MemoryLink(self)
            return link

    def join(self, link: MemoryLink, channels: Sequence[str]) -> None:
        with self._lock:
            for name in channels:
                ears = self._ears.setdefault(name, [])
                if link not in ears:
                    ears.append(link)
                link.hear(Subscribed(name))

    def leave(self, link: MemoryLink, channels: Sequence[str] | None = None) -> None:
        with self._lock:
            for name in list(self._ears) if channels is None else channels:
                ears = self._ears.get(name, [])
                if link in ears:
                    ears.remove(link)
                if not ears:
                    self._ears.pop(name, None)

    def claim(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._claims and self._claims[0][0] <= now:
                self._claimed.discard(heapq.heappop(self._claims)[1])
            if name in self._claimed:
                return False
            if len(self._claims) >= MAX_REMEMBERED:
                raise BrokerUnavailable(f"{MAX_REMEMBERED} names are claimed already")
            heapq.heappush(self._claims, (now + seconds, name))
            self._claimed.add(name)
            return True

    def wake(self, inbox: str) -> None:
        if inbox in self._links:
            self._links[inbox].hear(None)

    def close(self) -> None:
        with self._lock:
            for held in (self._heads, self._lists, self._ears, self._links, self._answers, self._claimed):
                held.clear()
            self._claims.clear()


class MemoryLink(Link):
    """A queue that the broker fills."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._unread: queue.SimpleQueue[LinkMessage | None] = queue.SimpleQueue()

    def hear(self, signal: LinkMessage | None) -> None:
        """Called by the broker; None only wakes the reader."""
        if self._unread.qsize() <= MAX_UNREAD:
            self._unread.put(signal)

    def subscribe(self, channels: Sequence[str]) -> None:
        self._broker.join(self, channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._broker.leave(self, channels)

    def read(self, timeout: float) -> list[LinkMessage]:
        if self._unread.qsize() > MAX_UNREAD:
            self.close()
            raise BrokerUnavailable(f"{MAX_UNREAD} events wait unread in this process")
        signals: list[LinkMessage] = []
        try:
            signal = self._unread.get(timeout=timeout)
            while True:
                if signal is not None:
                    signals.append(signal)
                signal = self._unread.get_nowait()
        except queue.Empty:
            return signals

    def close(self) -> None:
        self._broker.leave(self)
