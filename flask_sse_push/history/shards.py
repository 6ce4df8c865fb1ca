"""The shards of the broker as one worker knows them. Every broker but `redis+cluster://` has one.

Each shard has an order of its own, and a link reader, a history fetcher and a history cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..brokers.base import Broker
from ..config import Settings
from ..protocol.cursor import Cursor
from ..protocol.shard_cursor import ANY_CHANNELS, ShardCursor, StreamCursor
from .channel_cache import NOW
from .fetcher import HistoryFetcher
from .history_cache import HistoryCache, Item
from .link import LinkReader
from .placement import Placement
from .position import StartPoint
from .recovery import Recovery, ShardRecovery
from .sharded_recovery import ShardedRecovery, start_points

#: Placements kept. Many streams have the same channels, and each needs its placement several times.
MAX_PLACEMENTS = 1024

#: The number of a shard, and what its link reader or its fetcher brought.
ShardItem = tuple[int, Item]


class Shard:
    """One shard of the broker, as a worker knows it."""

    def __init__(
        self, number: int, broker: Broker, inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        self.number = number
        self.reader = LinkReader(broker, inbox, put, 2 * settings.probe, number)
        self.fetcher = HistoryFetcher(broker, inbox, put, settings.probe, self.reader.expect_echo, number)
        keep, keep_bytes = settings.history_size, settings.replica_bytes
        self.history_cache = HistoryCache(self.fetcher, keep, keep_bytes, number)


class LinkState(NamedTuple):
    """The state of the links of all shards: for each figure the worst. Times are monotonic seconds."""

    connected: bool
    heard_at: float
    proved_at: float
    reconnects: int
    probe_seconds: float | None


class Shards:
    """All shards of one worker.

    :param put: gets what the link readers and the fetchers bring; may block.
    """

    def __init__(
        self, brokers: Sequence[Broker], inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        self.all = [Shard(number, broker, inbox, put, settings) for number, broker in enumerate(brokers)]
        history_caches = [shard.history_cache for shard in self.all]
        #: Returns the placement of channels.
        self.placement: Callable[[tuple[str, ...]], Placement] = lru_cache(MAX_PLACEMENTS)(
            partial(Placement, history_caches)
        )

    def recovery(self, channels: tuple[str, ...], start: StartPoint) -> Recovery:
        """The recovery of a stream of `channels` that starts at `start`."""
        placement = self.placement(channels)
        if placement.is_sharded:
            return ShardedRecovery(placement, start)
        history_cache = placement.history_cache
        if start.cursor:
            start = start_points(placement, start)[history_cache.number]
        return ShardRecovery(history_cache, placement.channels, start)

    def enter(self, channels: tuple[str, ...], after: int = NOW) -> None:
        """Counts a stream that uses the channels, and subscribes those that are new.

        :param after: the position from which on the history of new channels is read.
        """
        for name, history_cache in self.placement(channels).history_cache_of.items():
            if history_cache.enter(name, after):
                self.all[history_cache.number].reader.subscribe([name])

    def exit(self, channels: tuple[str, ...], now: float) -> None:
        """Counts a stream that left the channels. `now` is monotonic seconds."""
        for name, history_cache in self.placement(channels).history_cache_of.items():
            history_cache.exit(name, now)

    def forget_idle(self, before: float) -> None:
        """Unsubscribes the channels that no stream has used since `before`."""
        for shard in self.all:
            if shard.history_cache.idle:
                gone = shard.history_cache.forget_idle(before)
                if gone:
                    shard.reader.unsubscribe(gone)

    def poke(self) -> None:
        """Makes the link readers send their subscriptions now. Costs a round trip for each that has some."""
        for shard in self.all:
            shard.reader.poke()

    @property
    def idle(self) -> bool:
        """Whether there are channels that no stream uses."""
        return any(shard.history_cache.idle for shard in self.all)

    def position(self) -> StreamCursor | None:
        """How far this worker has seen; None until the first reply, and while a new epoch begins."""
        snapshots = [shard.history_cache.snapshot for shard in self.all]
        cursors = [Cursor(snapshot.epoch, snapshot.position) for snapshot in snapshots if snapshot]
        if len(cursors) < len(snapshots):
            return None
        return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))

    def link(self) -> LinkState:
        """The state of the links."""
        readers = [shard.reader for shard in self.all]
        probes = [reader.probe_seconds for reader in readers if reader.probe_seconds is not None]
        return LinkState(
            all(reader.connected for reader in readers),
            min(reader.heard_at for reader in readers),
            min(reader.proved_at for reader in readers),
            sum(max(0, reader.reconnects) for reader in readers),
            max(probes, default=None),
        )

    def close(self) -> None:
        """Lets all threads return soon."""
        for shard in self.all:
            shard.reader.close()
            shard.fetcher.close()
