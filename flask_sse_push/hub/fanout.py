"""The fan-out of one worker: which streams get the same bytes, and the chunks made for them.

Called under the hub's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

from ..history.channel_cache import ChannelCache
from ..history.history_cache import Dispatch
from ..history.position import reset_of
from ..history.shards import Shard, Shards
from ..protocol.entry import Entry
from ..protocol.frames import reset_frame
from .batches import BatchPolicy, BatchQueue
from .compression import WindowPool
from .group import BatchingGroup, Chunks, Delivery, Group, united
from .sharded_group import ShardedBatchingGroup, ShardedGroup
from .stream import Stream


class Fanout:
    """The groups of one worker.

    :param batching: which streams get their events in batches.
    :param clock: monotonic seconds.
    """

    def __init__(self, shards: Shards, batching: BatchPolicy, clock: Callable[[], float]) -> None:
        self._shards = shards
        self._batching = batching
        self._clock = clock
        self.groups: dict[Hashable, Group] = {}
        self._followers: dict[ChannelCache, list[Group]] = {}  # the groups that follow a channel
        self.waiting = BatchQueue()  # groups whose batch is not due yet
        self._window_pool = WindowPool()
        self._sealed: list[Delivery] = []  # batches that a stream's joining ended, still to be written

    @property
    def waits(self) -> bool:
        """Whether something put together for streams is still to be written."""
        return bool(self.waiting or self._sealed)

    # -- who takes part ---------------------------------------------------------------------------------

    def part(self, stream: Stream) -> None:
        """Takes `sink` out."""
        group = stream.group
        if group is not None:
            group.remove(stream)
            if not group.streams:
                self._drop(group)

    def enlist(self, stream: Stream, channels: tuple[str, ...], last: Mapping[int, int]) -> None:
        """Lets a stream take part in the fan-out of `channels`.

        :param last: for each of their shards the position up to which it has everything.
        """
        waits = self._batching.waits(channels, stream.wait)
        encoding = stream.tagged, stream.compression is not None, waits and frozenset(waits.items())
        key = type(stream), frozenset(channels), encoding
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = self._group(stream, channels, waits)
            group.key = key
            group.begin(self._shards.placement(channels), last)
            for cache in group.placement.caches().values():
                self._followers.setdefault(cache, []).append(group)
        elif group.pending:  # the newcomer has had what waits there: it goes to the others alone
            self._sealed += group.flush(self._clock(), {})
        group.add(stream)

    def move(self, stream: Stream, channels: tuple[str, ...], last: Mapping[int, int]) -> list[Delivery]:
        """Has a stream change its group; returns what waited in batches, to be written in this place."""
        sealed = self.flushed([stream.group])
        self.part(stream)
        self.enlist(stream, channels, last)
        return [*sealed, *self.flushed([])]

    def _group(self, stream: Stream, channels: tuple[str, ...], waits: Mapping[str, float] | None) -> Group:
        window_pool = self._window_pool if stream.compression is not None else None
        placement = self._shards.placement(channels)
        if waits is None:
            plain = ShardedGroup if placement.is_sharded else Group
            return plain(channels, type(stream), stream.tagged, window_pool)
        by_cache = {cache: waits[name] for name, cache in placement.caches().items()}
        batching = ShardedBatchingGroup if placement.is_sharded else BatchingGroup
        return batching(channels, type(stream), stream.tagged, window_pool, by_cache, self.waiting)

    def _drop(self, group: Group) -> None:
        del self.groups[group.key]
        if group.window is not None:
            group.window.close()
        for cache in group.placement.caches().values():
            followers = self._followers[cache]
            followers.remove(group)
            if not followers:
                del self._followers[cache]

    # -- what they get ----------------------------------------------------------------------------------

    def flushed(self, groups: Iterable[Group | None]) -> list[Delivery]:
        """What is sealed, and what waits in `groups` for a batch: both must go before what follows."""
        sealed, self._sealed = self._sealed, []
        now, made = self._clock(), Chunks()
        for group in groups:
            if group is not None and group.pending:
                sealed += group.flush(now, made)
        return sealed

    def due(self) -> list[Delivery]:
        """The batches whose time has come."""
        now, made = self._clock(), Chunks()
        return [each for group in self.waiting.take(now) for each in group.deliveries(now, made)]

    def deliveries(
        self, entries: Iterable[tuple[ChannelCache, Entry]], notices: Mapping[Group, bytes]
    ) -> list[Delivery]:
        """The chunks of a dispatch; the notice of a group goes first."""
        touched = list(notices)
        for cache, entry in entries:
            for group in self._followers.get(cache, ()):
                if group.offer(entry, cache) and group not in notices:
                    touched.append(group)
        now, made = self._clock(), Chunks()
        return united(
            each for group in touched for each in group.deliveries(now, made, notices.get(group, b""))
        )

    def reset_notices(self, shard: Shard, dispatch: Dispatch) -> dict[Group, bytes]:
        """What each group must be told of events that a shard lost."""
        notices = {}
        for group in self.groups.values():
            here = group.placement.parts.get(shard.number, ())
            lost = [name for name in dispatch.lost if name in here]
            notice = b""
            if dispatch.new_epoch and here:
                cursor = group.restart(shard.history_cache)
                notice += reset_frame(*reset_of(list(here), group.channels, "epoch", cursor))
            if lost:
                notice += reset_frame(*reset_of(lost, group.channels, "history", None))
            if notice:
                notices[group] = notice
        return notices
