"""Groups whose streams get their events in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..history.channel_cache import ChannelCache
from ..protocol import batch
from ..protocol.entry import Entry
from .batches import BatchQueue
from .compression import WindowPool
from .group import Chunks, Delivery, Group
from .stream import Stream


class BatchingGroup(Group):
    """A group whose streams get their events in batches.

    :param waits: how long events of each channel may wait for a batch, in seconds.
    :param queue: notes when the group's next batch must be sent.
    """

    __slots__ = ("_collected", "_due", "_queue", "_shortest_wait", "_size", "_waits")

    batched = True

    def __init__(
        self,
        channels: tuple[str, ...],
        kind: type[Stream],
        tagged: bool,
        window_pool: WindowPool | None,
        waits: Mapping[ChannelCache, float],
        queue: BatchQueue,
    ) -> None:
        super().__init__(channels, kind, tagged, window_pool)
        self._waits = waits
        self._queue = queue
        self._collected = False  # whether `collect` was called since the last call of `deliveries`
        self._shortest_wait = 0.0  # shortest wait since the last call of `deliveries`, in seconds
        self._due: float | None = None  # monotonic time at which the pending entries must be sent
        self._size = 0  # bytes of the pending entries

    def collect(self, entry: Entry, cache: ChannelCache) -> bool:
        wait = self._waits[cache]
        first, self._collected = not self._collected, True
        self._shortest_wait = wait if first else min(wait, self._shortest_wait)
        # An event on two channels arrives twice. The second arrival may only shorten the wait.
        if entry.id > self.last:
            self.last = entry.id
            self.pending.append(entry)
            self._size += len(entry.frame)
        return first

    def deliveries(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        if self._collected:
            self._collected = False
            due = now + self._shortest_wait
            if self._due is None or due < self._due:
                self._due = due
                self._queue.add(self, due)
        if not self.pending and not notice:
            return []
        full = len(self.pending) >= batch.MAX_EVENTS or self._size >= batch.MAX_BYTES
        if notice or full or (self._due is not None and self._due <= now):
            return self.flush(now, chunks, notice)
        return []

    def flush(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        self._due, self._size = None, 0
        return super().flush(now, chunks, notice)

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        return batch.pack([entry.tagged(self.channels) if self.tagged else entry.frame for entry in entries])
