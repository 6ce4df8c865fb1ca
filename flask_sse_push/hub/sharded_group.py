"""Groups of streams whose channels lie on several shards. Each event's cursor covers all these shards."""

from __future__ import annotations

from collections.abc import Mapping

from ..history.channel_cache import ChannelCache
from ..history.history_cache import HistoryCache
from ..history.placement import Placement
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ShardCursor
from .batching_group import BatchingGroup
from .group import Group


class _Sharded(Group):
    """The methods that differ when the channels of a group lie on several shards."""

    __slots__ = ()

    def start(self, placement: Placement, last: Mapping[int, int]) -> None:
        self.placement = placement
        self.at = dict(last)
        self.cursors = placement.channel_hash

    @property
    def positions(self) -> dict[int, int]:
        return self.at

    def cursor(self) -> ShardCursor:
        return self.placement.stream_cursor(self.at)

    def restart(self, history_cache: HistoryCache) -> ShardCursor:
        snapshot = history_cache.announced
        self.at[history_cache.number] = snapshot.base
        return self._over_all(Cursor(snapshot.epoch, snapshot.base))

    def _over_all(self, cursor: Cursor) -> ShardCursor:
        """Returns a cursor over all shards: `cursor` for one shard, the group's positions for the others."""
        number = int(cursor.epoch[0])
        others = {
            other: history_cache.stream_cursor(self.at[other])
            for other, history_cache in self.placement.history_caches.items()
            if other != number
        }
        return self.placement.shard_cursor({**others, number: cursor})

    def collect(self, entry: Entry, cache: ChannelCache) -> bool:
        """Like `Group.collect`. If an event lies on several shards, it is collected from one shard only."""
        number = int(entry.epoch[0])
        last = self.at[number]
        if entry.id < last or not self.placement.delivers(entry, number):
            self.at[number] = max(last, entry.id)
            return False
        if entry.id == last:
            # The event arrived on another channel before. The second arrival may only shorten the wait.
            self.last = entry.id
            return super().collect(entry, cache)
        self.at[number] = entry.id
        self.last = 0
        return super().collect(entry.placed(str(self._over_all(entry.position))), cache)


class ShardedGroup(_Sharded):
    """A group whose channels lie on several shards."""

    __slots__ = ()


class ShardedBatchingGroup(_Sharded, BatchingGroup):
    """A group whose channels lie on several shards and whose streams get their events in batches."""

    __slots__ = ()
