"""Recovery: gives a stream the events that it missed, until it has every event that the worker dispatched."""

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
from .position import Gap, Opening, Reset, StartPoint
from .recovery import MissedEvents


class Step(NamedTuple):
    """The next frames for a stream, in this order: `sse.open`, resets, missed events."""

    opening: Opening | None  # the content of `sse.open` in the first step, then None
    resets: Sequence[Reset]
    chunk: MissedChunk
    began: int | None  # the stream's new start position, or None if it does not change; 0 on several shards
    is_complete: bool  # whether the stream has every event after this step


#: The step for a stream that has every event.
NOTHING_MISSED = Step(None, (), NO_CHUNK, None, True)


class Recovery(ABC):
    """The events that one stream missed. The caller holds the hub's lock, except in `wait`.

    Call `next` until a step is complete or has no frames. Then let the stream join its group before you
    release the lock. When `next` returns None, release the lock and call `wait`.
    """

    #: The gaps found so far. A caller that records gaps removes them from this list.
    gaps: list[Gap]
    _waiter: threading.Event | None = None

    @abstractmethod
    def next(self) -> Step | None:
        """Returns the next step; None if the broker must answer a request first, see `wait`."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the stream has every event that this worker dispatched."""

    @abstractmethod
    def is_settled(self) -> bool:
        """Whether, on each shard, every event up to some position was dispatched and no event after it.

        If not, this method queues a probe. Call `wait`, which returns when the probe was answered,
        then call this method again.
        """

    @property
    @abstractmethod
    def positions(self) -> Position:
        """For each shard, the position up to which the stream has every event."""

    def waiter(self) -> threading.Event:
        """Returns the `threading.Event` that is set when the broker has answered a request."""
        if self._waiter is None:
            self._waiter = threading.Event()
        return self._waiter

    def wait(self, timeout: float) -> bool:
        """Blocks until the broker has answered a request, at most `timeout` seconds.

        :returns: whether the broker answered in time.
        """
        waiter = self.waiter()
        answered = waiter.wait(max(0.0, timeout))
        waiter.clear()
        return answered


class ShardRecovery(MissedEvents, Recovery):
    """Gives a stream the events that it missed on one shard."""

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
        """Whether the broker must answer requests before the stream can go on. Queues these requests."""
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
        """Returns the content of `sse.open` in the first call, and the resets for events that are gone."""
        caches, snapshot = self.history_cache.caches, self.history_cache.announced
        if self.position is None:
            opening, reset = self.begin(caches, snapshot)
        else:
            opening, reset = None, self.reset(caches, snapshot)
        return opening, () if reset is None else (reset,)

    def next_chunk(self) -> MissedChunk:
        """Returns the next chunk of missed events. Call this only after `begin_or_reset`."""
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
        """Queues a history call without entries. Its position will be later than this worker's position."""
        probed = self.start_probe()
        if probed is not None:
            self.history_cache.reads.request(BROADCAST, HistoryRequest(NOW, probed, self.waiter()))

    @property
    def positions(self) -> Position:
        return {self.history_cache.number: self.position or 0}
