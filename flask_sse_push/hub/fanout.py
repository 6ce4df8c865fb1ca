"""The fan-out: finds the groups that get an event and makes deliveries. Called under the hub's lock."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from ..history.channel_cache import ChannelCache
from ..history.history_cache import Dispatch
from ..history.position import reset_of
from ..history.shards import Shard, Shards
from ..protocol.entry import Entry
from .batches import BatchPolicy, BatchQueue
from .batching_group import BatchingGroup
from .compression import WindowPool
from .crowd import deliver_to_crowd
from .encoder import EncodedGroup
from .group import Chunks, Delivery, Group, merge_equal
from .sharded_group import ShardedBatchingGroup, ShardedGroup
from .stream import Stream


class Fanout:
    """The groups of one worker.

    :param batching: decides which streams get their events in batches.
    :param clock: returns monotonic seconds.
    """

    def __init__(self, shards: Shards, batching: BatchPolicy, clock: Callable[[], float]) -> None:
        self._shards = shards
        self._batching = batching
        self._clock = clock
        self.groups: dict[Hashable, Group] = {}
        self._followers: dict[ChannelCache, list[Group]] = {}  # the groups that listen to each channel
        #: Which groups have a batch to send later, and when.
        self.batches = BatchQueue()
        #: Batches that must be sent early because a stream joined their group. The caller must write these
        #: batches before anything else.
        self.early: list[Delivery] = []
        self._window_pool = WindowPool()

    # -- the group of each stream ----------------------------------------------------------------------

    def remove(self, stream: Stream) -> None:
        """Removes a stream from its group. Does nothing if the stream has no group."""
        group = stream.group
        if group is not None:
            group.remove(stream)
            if not group.streams:
                self._drop(group)

    def add(self, stream: Stream, channels: tuple[str, ...], last: Mapping[int, int]) -> None:
        """Adds a stream to the group of `channels`. The stream gets events of these channels from now on.

        :param last: maps each shard's number to the position up to which the stream has every event. All
            streams of the group must have the same positions.
        """
        waits = self._batching.waits(channels, stream.batch_wait)
        encoding = (
            stream.tagged,
            stream.dialect,
            stream.compression is not None,
            stream.encoder and stream.encoder.key,
            waits and frozenset(waits.items()),
        )
        key = type(stream), frozenset(channels), encoding
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = self._group(stream, channels, waits)
            group.key, group.dialect = key, stream.dialect
            group.start(self._shards.placement(channels), last)
            for cache in group.placement.caches().values():
                self._followers.setdefault(cache, []).append(group)
        elif group.pending:  # the new stream already has the pending events; the other streams get them now
            self.early += group.flush(self._clock(), {})
        group.add(stream)

    def move(self, stream: Stream, channels: tuple[str, ...], last: Mapping[int, int]) -> list[Delivery]:
        """Moves a stream to the group of other channels.

        Returns the pending batches of the old and the new group. The caller must write them before anything
        else goes to the stream.
        """
        pending = self.take_pending([stream.group])
        self.remove(stream)
        self.add(stream, channels, last)
        return [*pending, *self.take_pending()]

    def followers(self, shard: Shard, channel: str) -> list[Stream]:
        """The streams that listen to `channel`, which lies on `shard`."""
        groups = [
            group for group in self.groups.values() if channel in group.placement.parts.get(shard.number, ())
        ]
        return [stream for group in groups for stream in group.streams]

    def _group(self, stream: Stream, channels: tuple[str, ...], waits: Mapping[str, float] | None) -> Group:
        window_pool = self._window_pool if stream.compression is not None else None
        if stream.encoder is not None:
            return EncodedGroup(channels, type(stream), window_pool, stream.encoder)
        placement = self._shards.placement(channels)
        if waits is None:
            plain = ShardedGroup if placement.is_sharded else Group
            return plain(channels, type(stream), stream.tagged, window_pool)
        by_cache = {cache: waits[name] for name, cache in placement.caches().items()}
        batching = ShardedBatchingGroup if placement.is_sharded else BatchingGroup
        return batching(channels, type(stream), stream.tagged, window_pool, by_cache, self.batches)

    def _drop(self, group: Group) -> None:
        del self.groups[group.key]
        if group.window is not None:
            group.window.close()
        for cache in group.placement.caches().values():
            followers = self._followers[cache]
            followers.remove(group)
            if not followers:
                del self._followers[cache]

    # -- deliveries for the groups ----------------------------------------------------------------------

    def deliveries(
        self, entries: Sequence[tuple[ChannelCache, Entry]], notices: Mapping[Group, bytes]
    ) -> list[Delivery]:
        """Makes the deliveries for all groups that get any of `entries` or `notices`.

        :param entries: each entry with the cache of the channel on which it arrived.
        :param notices: frames to send to a group before the entries.
        """
        groups, made, now, chunks = list(notices), list[Delivery](), self._clock(), Chunks()
        followers: Mapping[ChannelCache, Sequence[Group]] = self._followers
        common, most = None, 1
        for cache, _ in () if notices else entries:
            count = len(followers.get(cache, ()))
            if count > most:
                common, most = cache, count
        if common is not None:
            made, followers = self._to_crowd(common, entries, now)
        for cache, entry in entries:
            for group in followers.get(cache, ()):
                if group.collect(entry, cache) and group not in notices:
                    groups.append(group)
        for group in groups:
            made += group.deliveries(now, chunks, notices.get(group, b""))
        return merge_equal(made) if len(made) > 1 else made

    def _to_crowd(
        self, common: ChannelCache, entries: Sequence[tuple[ChannelCache, Entry]], now: float
    ) -> tuple[list[Delivery], Mapping[ChannelCache, Sequence[Group]]]:
        """Makes the deliveries for the groups that get entries of the channel `common` only.

        Returns these deliveries, and the remaining groups that listen to the channel of each entry.
        """
        followers: dict[ChannelCache, Sequence[Group]] = {
            cache: self._followers.get(cache, ()) for cache, _ in entries
        }
        apart = {group for cache in followers if cache is not common for group in followers[cache]}
        own = [entry for cache, entry in entries if cache is common]
        made, followers[common] = deliver_to_crowd(followers[common], own, apart, now)
        return made, followers

    def due_batches(self, now: float) -> list[Delivery]:
        """Makes the deliveries of all batches that must be sent at `now`, in monotonic seconds."""
        chunks = Chunks()
        return [delivery for group in self.batches.take(now) for delivery in group.deliveries(now, chunks)]

    def take_pending(self, groups: Iterable[Group | None] = ()) -> list[Delivery]:
        """Returns the batches that must be written before anything else goes to streams of `groups`."""
        pending, self.early = self.early, []
        now, chunks = self._clock(), Chunks()
        for group in groups:
            if group is not None and group.pending:
                pending += group.flush(now, chunks)
        return pending

    def reset_notices(self, shard: Shard, dispatch: Dispatch) -> dict[Group, bytes]:
        """Returns the `sse.reset` frames for each group that lost events of `shard`."""
        notices = {}
        for group in self.groups.values():
            here = group.placement.parts.get(shard.number, ())
            lost = [name for name in dispatch.lost if name in here]
            notice = b""
            if dispatch.new_epoch and here:
                cursor = group.restart(shard.history_cache)
                notice += group.reset_notice(*reset_of(list(here), group.channels, "epoch", cursor))
            if lost:
                notice += group.reset_notice(*reset_of(lost, group.channels, "history", None))
            if notice:
                notices[group] = notice
        return notices
