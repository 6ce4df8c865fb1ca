"""Groups of streams whose channels lie on several shards: each event gets a cursor over all of them."""

from __future__ import annotations

from collections.abc import Mapping

from .brokers.base import Entry
from .cursor import Cursor
from .group import BatchingGroup, Group
from .replica import Replica
from .shards import Route, Shard
from .vector import Vector


class _Split(Group):
    """What both kinds add to a group."""

    __slots__ = ()

    def begin(self, route: Route, last: Mapping[int, int]) -> None:
        self.route = route
        self.at = dict(last)
        self.cursors = route.mark

    @property
    def positions(self) -> dict[int, int]:
        return self.at

    def told(self) -> Vector:
        return self.route.told(self.at)

    def restart(self, shard: Shard) -> Vector:
        moment = shard.timeline.moment()
        self.at[shard.number] = moment.base
        return self._vector(Cursor(moment.epoch, moment.base))

    def _vector(self, cursor: Cursor) -> Vector:
        """`cursor` on its shard, and on the others where they stand."""
        number = int(cursor.epoch[0])
        shards = self.route.shards.items()
        others = {each: shard.told(self.at[each]) for each, shard in shards if each != number}
        return self.route.vector({**others, number: cursor})

    def offer(self, entry: Entry, replica: Replica) -> bool:
        """As `Group.offer`. An event that lies on several shards is taken from one of them."""
        number = int(entry.epoch[0])
        had = self.at[number]
        if entry.id < had or not self.route.takes(entry, number):
            self.at[number] = max(had, entry.id)
            return False
        if entry.id == had:  # by another channel: it may be in more of a hurry there
            self.last = entry.id
            return super().offer(entry, replica)
        self.at[number] = entry.id
        self.last = 0
        return super().offer(entry.placed(str(self._vector(entry.position))), replica)


class SplitGroup(_Split):
    """A group over several shards."""

    __slots__ = ()


class SplitBatchingGroup(_Split, BatchingGroup):
    """The same, with events that wait for others."""

    __slots__ = ()
