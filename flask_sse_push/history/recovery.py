"""Recovery: gives a stream the events it missed, until it has everything."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from ..protocol.channel import BROADCAST
from ..protocol.shard_cursor import Position
from .channel_cache import NOW
from .chunk import NO_CHUNK, MissedChunk
from .fetcher import HistoryRequest
from .history_cache import HistoryCache
from .missed import MissedEvents
from .position import Gap, Opening, Reset, StartPoint


class Step(NamedTuple):
    """What a stream gets next, in this order: its `sse.open`, resets, missed events."""

    opening: Opening | None  # only in the first step
    resets: Sequence[Reset]
    chunk: MissedChunk
    began: int | None  # the position that the stream begins at, if this step sets one; 0 over several shards
    is_complete: bool  # whether the stream has everything with this


#: For a stream that has everything.
NOTHING_MISSED = Step(None, (), NO_CHUNK, None, True)


class Recovery(ABC):
    """The events that one stream missed. The caller holds the hub's lock, except in `wait`.

    Call `next` until a step brings nothing or is complete, then let the stream join its group under the same
    lock. When `next` returns None, release the lock and `wait`.
    """

    #: Gaps in what the stream gets. A caller who keeps a record of them takes them out.
    gaps: list[Gap]
    _waiter: threading.Event | None = None

    @abstractmethod
    def next(self) -> Step | None:
        """The next step; None when the broker must be asked first, and `wait` returns when it was."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the stream has everything that this worker dispatched."""

    @abstractmethod
    def is_settled(self) -> bool:
        """Whether the worker dispatched everything up to one position and nothing after it, on each shard.

        Otherwise it queues a request after which that may be so, and which `wait` waits for.
        """

    @property
    @abstractmethod
    def positions(self) -> Position:
        """For each shard the position up to which the stream has everything."""

    def waiter(self) -> threading.Event:
        """The event that is set when a request of this recovery was answered."""
        if self._waiter is None:
            self._waiter = threading.Event()
        return self._waiter

    def wait(self, timeout: float) -> bool:
        """Blocks until a request was answered, at most `timeout` seconds; returns whether one was."""
        waiter = self.waiter()
        answered = waiter.wait(max(0.0, timeout))
        waiter.clear()
        return answered


class ShardRecovery(MissedEvents, Recovery):
    """The recovery of a stream on one shard."""

    def __init__(
        self,
        history_cache: HistoryCache,
        channels: tuple[str, ...],
        start: StartPoint,
        waiter: threading.Event | None = None,
    ) -> None:
        super().__init__(channels, start)
        self.history_cache = history_cache
        self._waiter = waiter

    def next(self) -> Step | None:
        snapshot = self.history_cache.snapshot
        if snapshot is not None:
            if self.position is None:
                opening = self.begin_live(self.history_cache.caches, snapshot)
                if opening is not None:
                    return Step(opening, (), NO_CHUNK, snapshot.position, True)
            elif self.has_all_of(snapshot):
                return NOTHING_MISSED
        if self.must_wait():
            return None
        opening, resets = self.begin_or_reset()
        moved = opening is not None or any(reset.cursor for reset in resets)
        began = self.position if moved else None
        return Step(opening, resets, self.next_chunk(), began, self.is_complete())

    def must_wait(self) -> bool:
        """Whether the broker must be asked before the stream can go on. Queues the requests."""
        history_cache = self.history_cache
        if history_cache.new_epoch:
            history_cache.waiters.add(self.waiter())
            return True
        snapshot = history_cache.snapshot
        needs = self.needs(history_cache.caches, snapshot)
        for name, after in needs.items():
            history_cache.reads.request(name, HistoryRequest(after, self.waiter()))
        if needs or snapshot is None or not self.must_probe(snapshot):
            return bool(needs)
        self._request_probe()
        return True

    def begin_or_reset(self) -> tuple[Opening | None, Sequence[Reset]]:
        """The opening, at first; later the resets for events that the broker lost meanwhile."""
        caches, snapshot = self.history_cache.caches, self.history_cache.announced
        if self.position is None:
            opening, reset = self.begin(caches, snapshot)
        else:
            opening, reset = None, self.reset(caches, snapshot)
        return opening, () if reset is None else (reset,)

    def next_chunk(self) -> MissedChunk:
        """The next missed events. Only after `begin_or_reset`."""
        history_cache = self.history_cache
        return self.take(history_cache.caches, history_cache.announced, history_cache.chunk_cache)

    def is_complete(self) -> bool:
        snapshot = self.history_cache.snapshot
        return not self.channels or (snapshot is not None and self.has_all_of(snapshot))

    def is_settled(self) -> bool:
        if self.history_cache.is_settled():
            return True
        self._request_probe()
        return False

    def _request_probe(self) -> None:
        """Reads the head of one channel: the position of that read is later than anything known here."""
        probed = self.start_probe()
        if probed is not None:
            self.history_cache.reads.request(BROADCAST, HistoryRequest(NOW, probed, self.waiter()))

    @property
    def positions(self) -> Position:
        return {self.history_cache.number: self.position or 0}
