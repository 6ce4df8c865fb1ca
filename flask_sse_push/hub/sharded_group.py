"""Groups of streams whose channels lie on several shards: each event gets a cursor over all of them."""

from __future__ import annotations

from collections.abc import Mapping

from ..history.channel_cache import ChannelCache
from ..history.history_cache import HistoryCache
from ..history.placement import Placement
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ShardCursor
from .group import BatchingGroup, Group


class _Split(Group):
    """What both kinds add to a group."""

    __slots__ = ()

    def begin(self, placement: Placement, last: Mapping[int, int]) -> None:
        self.placement = placement
        self.at = dict(last)
        self.cursors = placement.channel_hash

    @property
    def positions(self) -> dict[int, int]:
        return self.at

    def told(self) -> ShardCursor:
        return self.placement.stream_cursor(self.at)

    def restart(self, history_cache: HistoryCache) -> ShardCursor:
        snapshot = history_cache.announced
        self.at[history_cache.number] = snapshot.base
        return self._vector(Cursor(snapshot.epoch, snapshot.base))

    def _vector(self, cursor: Cursor) -> ShardCursor:
        """`cursor` on its shard, and on the others where they stand."""
        number = int(cursor.epoch[0])
        others = {
            each: history_cache.stream_cursor(self.at[each])
            for each, history_cache in self.placement.history_caches.items()
            if each != number
        }
        return self.placement.shard_cursor({**others, number: cursor})

    def offer(self, entry: Entry, cache: ChannelCache) -> bool:
        """As `Group.offer`. An event that lies on several shards is taken from one of them."""
        number = int(entry.epoch[0])
        had = self.at[number]
        if entry.id < had or not self.placement.delivers(entry, number):
            self.at[number] = max(had, entry.id)
            return False
        if entry.id == had:  # by another channel: it may be in more of a hurry there
            self.last = entry.id
            return super().offer(entry, cache)
        self.at[number] = entry.id
        self.last = 0
        return super().offer(entry.placed(str(self._vector(entry.position))), cache)


class ShardedGroup(_Split):
    """A group over several shards."""

    __slots__ = ()


class ShardedBatchingGroup(_Split, BatchingGroup):
    """The same, with events that wait for others."""

    __slots__ = ()
