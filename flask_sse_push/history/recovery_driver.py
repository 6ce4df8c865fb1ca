"""Recovery: gives a stream the events that it missed, until it has every event that the worker dispatched."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from ..protocol.channel import BROADCAST
from ..protocol.cursor import EARLIEST
from ..protocol.shard_cursor import Position
from .channel_cache import NOW
from .chunk import NO_CHUNK, MissedChunk
from .history_cache import HistoryCache
from .joining import Joining
from .page import Waiter
from .position import Gap, Opening, Reset, Snapshot, StartPoint
from .read_queue import HistoryRequest
from .recovery import MissedEvents

#: At most how many times a stream has its missed events read into the channel caches. If the caches still
#: lack some, the stream reads them in pages.
MAX_FILLS = 16


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
    #: See `MissedEvents`.
    joining: Joining | None
    boundary: int
    _waiter: Waiter | None = None

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

    @abstractmethod
    def has_more(self) -> bool:
        """Whether more missed events may follow, although the last step had no frames."""

    @property
    @abstractmethod
    def waits_for_room(self) -> bool:
        """Whether the stream waits because other streams take all the room for missed events."""

    def close(self) -> None:
        """Says that the stream needs no more missed events, so that none are read for it. Does not block."""
        if self._waiter is not None:
            self._waiter.gone = True

    def waiter(self) -> Waiter:
        """Returns the object that is set when the broker has answered a request."""
        if self._waiter is None:
            self._waiter = Waiter()
        return self._waiter

    def wait(self, timeout: float) -> bool:
        """Blocks until the broker has answered a request, at most `timeout` seconds.

        :returns: whether the broker answered in time.
        """
        return self.waiter().wait(max(0.0, timeout))


class ShardRecovery(MissedEvents, Recovery):
    """Gives a stream the events that it missed on one shard."""

    def __init__(
        self,
        history_cache: HistoryCache,
        channels: tuple[str, ...],
        start: StartPoint,
        waiter: Waiter | None = None,
    ) -> None:
        super().__init__(channels, start)
        self.history_cache = history_cache
        self._waiter = waiter
        self._fills = 0  # how often missed events of this stream were read into the channel caches
        self._clock_read: threading.Event | None = None  # set when the clock was read for the next chunk

    def next(self) -> Step | None:
        snapshot = self.history_cache.snapshot
        if snapshot is not None:
            if self.position is None:
                opening = self.begin_live(self.history_cache.caches, snapshot)
                if opening is not None:
                    return Step(opening, (), NO_CHUNK, snapshot.position, True)
                step = self._shared_step(snapshot)
                if step is not None:
                    return step
            elif self.has_all_of(snapshot):
                return NOTHING_MISSED
        if self.must_wait():
            return None
        opening, resets = self.begin_or_reset()
        moved = opening is not None or any(reset.cursor for reset in resets)
        began = self.position if moved else None
        chunk, is_complete = self.next_chunk(), self.is_complete()
        if opening is not None and is_complete and not chunk.entries:
            opening = self.without_events(opening)
        step = Step(opening, resets, chunk, began, is_complete)
        if is_complete and opening is not None and not resets:
            self._share(step)
        return step

    def _shared_step(self, snapshot: Snapshot) -> Step | None:
        """Returns the kept step, if this stream begins in the same way and the caches still have its events.

        Then also sets the position of this stream. Otherwise returns None.
        """
        kept = self.history_cache.chunk_cache
        if kept.step is None or self._given is None or kept.begin != self._beginning(snapshot):
            return None
        after, caches = self._given.id, self.history_cache.caches
        if max([caches[name].floor for name in self.channels]) > after:
            return None  # the caches do not have the events any more
        self._epoch, self._complete_at = snapshot.epoch, snapshot
        self.position = after if kept.step.chunk.position is None else kept.step.chunk.position
        return kept.step

    def _share(self, step: Step) -> None:
        """Keeps a first step that brought the stream up to date, for streams with the same start."""
        kept, snapshot = self.history_cache.chunk_cache, self.history_cache.snapshot
        # Chunks with events that expire, or that may not be complete, are not kept.
        is_kept = step.chunk is kept.chunk
        if is_kept and self._given is not None and not self._start.asks_broker:
            kept.begin, kept.step = self._beginning(snapshot), step

    def _beginning(self, snapshot: Snapshot | None) -> tuple[object, ...]:
        """Returns all that the first step of the stream depends on, except the caches."""
        return self.channels, self._start, snapshot, self.joining, self.boundary

    def must_wait(self) -> bool:
        """Whether the broker must answer requests before the stream can go on. Queues these requests."""
        history_cache = self.history_cache
        if history_cache.new_epoch:
            history_cache.waiters.add(self.waiter())
            return True
        snapshot = history_cache.snapshot
        needs = self.needs(history_cache.caches, snapshot)
        if needs and not (snapshot is not None and self.has_page(needs, snapshot)):
            self._read(needs, snapshot)
            return True
        if snapshot is None:
            return False
        if not needs and self.must_probe(snapshot):
            self._request_probe()
            return True
        return self.must_read_clock(snapshot)

    def clock(self, snapshot: Snapshot) -> float:
        return self.history_cache.clock()

    def must_read_clock(self, snapshot: Snapshot) -> bool:
        """Whether the broker's clock must be read before the next chunk. Queues a history call that reads it.

        The clock matters only for events with a time to live that is not over yet. The broker's clock may
        have been set forward since the last reply.
        """
        if self._clock_read is not None:
            return not self._clock_read.is_set()
        caches, page = self.history_cache.caches, self._page(snapshot)
        expires = max([page.expires if page else 0, *[caches[name].expires for name in self.channels]])
        if expires <= self.history_cache.clock():
            return False
        self._clock_read = threading.Event()
        self.history_cache.reads.request(BROADCAST, HistoryRequest(NOW, self._clock_read, self.waiter()))
        return True

    def _read(self, needs: dict[str, int], snapshot: Snapshot | None) -> None:
        """Requests the events that the channel caches lack, for the caches or as a page of this stream."""
        caches, waiter = self.history_cache.caches, self.waiter()
        asked = self._asked_page
        if asked is not None and asked.page is None:
            return  # the page is on its way
        if asked is not None and snapshot is not None and self.history_cache.paused:
            # The page reaches further than the dispatch. The stream can use it when the dispatch goes on.
            self.history_cache.waiters.add(waiter)
            return
        too_small = any(caches[name].is_too_small for name in needs)
        if snapshot is not None and (too_small or self._fills >= MAX_FILLS):
            request = self.page_request(needs)
            request.waiters.add(waiter)
            self._asked_page = self.history_cache.reads.request_page(request)
            return
        self._fills += 1
        for name, after in needs.items():
            self.history_cache.reads.request(name, HistoryRequest(after, waiter))

    def has_more(self) -> bool:
        return self.is_paging

    @property
    def waits_for_room(self) -> bool:
        return self._asked_page is not None and self._asked_page.is_crowded

    def begin_or_reset(self) -> tuple[Opening | None, Sequence[Reset]]:
        """Returns the content of `sse.open` in the first call, and the resets for events that are gone."""
        caches, snapshot = self.history_cache.caches, self.history_cache.announced
        if self.position is None:
            opening, reset = self.begin(caches, snapshot)
        else:
            opening, reset = None, self.reset(caches, snapshot)
        return opening, () if reset is None else (reset,)

    def without_events(self, opening: Opening) -> Opening:
        """Returns the content of `sse.open` for a stream that missed no event.

        A stream that wants every kept event, and finds none, begins at the worker's position like any other.
        """
        snapshot = self.history_cache.snapshot
        if opening.cursor != EARLIEST or snapshot is None:
            return opening
        self.skip(snapshot.position)
        return Opening(str(self.cursor), False)

    def next_chunk(self) -> MissedChunk:
        """Returns the next chunk of missed events. Call this only after `begin_or_reset`."""
        history_cache = self.history_cache
        self._clock_read = None
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
