"""The fan-out of one worker: which streams get the same bytes, and the chunks made for them.

Called under the hub's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

from .batching import Batching, Waiting
from .brokers.base import Entry
from .group import BatchingGroup, Chunks, Delivery, Group, united
from .http_encoding import Windows
from .replica import Replica
from .resume import reset_frame, reset_of
from .shards import Shard, Shards
from .sink import Sink
from .split_group import SplitBatchingGroup, SplitGroup
from .timeline import Dispatch


class Fanout:
    """The groups of one worker.

    :param batching: which streams get their events in batches.
    :param clock: monotonic seconds.
    """

    def __init__(self, shards: Shards, batching: Batching, clock: Callable[[], float]) -> None:
        self._shards = shards
        self._batching = batching
        self._clock = clock
        self.groups: dict[Hashable, Group] = {}
        self.waiting = Waiting()  # groups whose batch is not due yet
        self._windows = Windows()
        self._sealed: list[Delivery] = []  # batches that a stream's joining ended, still to be written

    @property
    def waits(self) -> bool:
        """Whether something put together for streams is still to be written."""
        return bool(self.waiting or self._sealed)

    # -- who takes part ---------------------------------------------------------------------------------

    def part(self, sink: Sink) -> None:
        """Takes `sink` out."""
        group = sink.group
        if group is not None:
            group.remove(sink)
            if not group.sinks:
                self._drop(group)

    def enlist(self, sink: Sink, channels: tuple[str, ...], last: Mapping[int, int]) -> None:
        """Lets a stream take part in the fan-out of `channels`.

        :param last: for each of their shards the position up to which it has everything.
        """
        waits = self._batching.waits(channels, sink.wait)
        encoding = sink.tagged, sink.coding is not None, waits and frozenset(waits.items())
        key = type(sink), frozenset(channels), encoding
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = self._group(sink, channels, waits)
            group.key = key
            group.begin(self._shards.route(channels), last)
            for replica in group.route.replicas().values():
                replica.groups.append(group)
        elif group.pending:  # the newcomer has had what waits there: it goes to the others alone
            self._sealed += group.flush(self._clock(), {})
        group.add(sink)

    def move(self, sink: Sink, channels: tuple[str, ...], last: Mapping[int, int]) -> list[Delivery]:
        """Has a stream change its group; returns what waited in batches, to be written in this place."""
        sealed = self.flushed([sink.group])
        self.part(sink)
        self.enlist(sink, channels, last)
        return [*sealed, *self.flushed([])]

    def _group(self, sink: Sink, channels: tuple[str, ...], waits: Mapping[str, float] | None) -> Group:
        windows = self._windows if sink.coding is not None else None
        route = self._shards.route(channels)
        if waits is None:
            plain = SplitGroup if route.is_split else Group
            return plain(channels, type(sink), sink.tagged, windows)
        by_replica = {replica: waits[name] for name, replica in route.replicas().items()}
        batching = SplitBatchingGroup if route.is_split else BatchingGroup
        return batching(channels, type(sink), sink.tagged, windows, by_replica, self.waiting)

    def _drop(self, group: Group) -> None:
        del self.groups[group.key]
        if group.cohort is not None:
            group.cohort.close()
        for replica in group.route.replicas().values():
            replica.groups.remove(group)

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
        self, entries: Iterable[tuple[Replica, Entry]], notices: Mapping[Group, bytes]
    ) -> list[Delivery]:
        """The chunks of a dispatch; the notice of a group goes first."""
        touched = list(notices)
        for replica, entry in entries:
            for group in replica.groups:
                if group.offer(entry, replica) and group not in notices:
                    touched.append(group)
        now, made = self._clock(), Chunks()
        return united(
            each for group in touched for each in group.deliveries(now, made, notices.get(group, b""))
        )

    def reset_notices(self, shard: Shard, dispatch: Dispatch) -> dict[Group, bytes]:
        """What each group must be told of events that a shard lost."""
        notices = {}
        for group in self.groups.values():
            here = group.route.parts.get(shard.number, ())
            lost = [name for name in dispatch.lost if name in here]
            notice = b""
            if dispatch.new_epoch and here:
                cursor = group.restart(shard)
                notice += reset_frame(reset_of(list(here), group.channels, "epoch", cursor))
            if lost:
                notice += reset_frame(reset_of(lost, group.channels, "history", None))
            if notice:
                notices[group] = notice
        return notices
