"""The shards of the broker as one worker sees them. Only `redis+cluster://` has several shards.

For each shard, a worker has a link reader, a history fetcher and a history cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..brokers.base import Broker
from ..config import Settings
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ANY_CHANNELS, ShardCursor, StreamCursor
from .channel_cache import NOW
from .fetcher import HistoryFetcher
from .history_cache import HistoryCache, Item
from .joining import Joining
from .link import LinkReader
from .placement import Placement
from .position import StartPoint
from .recovery_driver import Recovery, ShardRecovery
from .room import Room
from .sharded_recovery import ShardedRecovery, start_points

#: At most how many placements are kept. Many streams have the same channels, and so the same placement. A
#: placement of many channels takes about 10 kB.
MAX_PLACEMENTS = 128

#: First the number of a shard, then an item from its link reader or its history fetcher.
ShardItem = tuple[int, Item]


class Shard:
    """The link reader, the history fetcher and the history cache of a worker for one shard of the broker."""

    def __init__(
        self,
        number: int,
        broker: Broker,
        inbox: str,
        put: Callable[[ShardItem], None],
        settings: Settings,
        room: Room,
        hold: int,
        declares: bool,
    ) -> None:
        self.number = number
        self.reader = LinkReader(broker, inbox, put, 2 * settings.probe, number, declares)
        self.fetcher = HistoryFetcher(
            broker, inbox, put, settings.probe, self.reader.expect_echo, number, room, settings.catch_up_page
        )
        self.history_cache = HistoryCache(
            self.fetcher, settings.policies, settings.replica_bytes, number, hold
        )


class LinkState(NamedTuple):
    """The state of the links of all shards together. Times are monotonic seconds.

    Each field has the value of the shard whose link is worst; `reconnects` is the sum of all shards.
    """

    connected: bool
    heard_at: float
    proved_at: float
    reconnects: int
    probe_seconds: float | None


class Shards:
    """All shards of the broker as one worker sees them.

    :param put: called with each item from a link reader or a history fetcher; may block.
    :param declares: whether to tell the broker the channel policies of this process.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        inbox: str,
        put: Callable[[ShardItem], None],
        settings: Settings,
        declares: bool = False,
    ) -> None:
        # One half is for pages and replies, the other half for the channel caches of all shards.
        half = settings.catch_up_bytes // 2
        room, hold = Room(half), half // len(brokers)
        self.all = [
            Shard(number, broker, inbox, put, settings, room, hold, declares)
            for number, broker in enumerate(brokers)
        ]
        self._tend_at = 0.0
        #: How missed events are joined for new streams; None if each event is sent as it was published.
        self.joining: Joining | None = None
        history_caches = [shard.history_cache for shard in self.all]
        #: Returns the placement of a tuple of channels.
        self.placement: Callable[[tuple[str, ...]], Placement] = lru_cache(MAX_PLACEMENTS)(
            partial(Placement, history_caches)
        )

    def recovery(self, channels: tuple[str, ...], start: StartPoint) -> Recovery:
        """Returns the object that gives a stream of `channels` the events that it missed since `start`."""
        placement = self.placement(channels)
        if placement.is_sharded:
            return ShardedRecovery(placement, start, self.joining)
        history_cache = placement.history_cache
        if start.cursor:
            start = start_points(placement, start)[history_cache.number]
        recovery = ShardRecovery(history_cache, placement.channels, start)
        recovery.joining = self.joining
        return recovery

    def enter(self, channels: tuple[str, ...], after: int = NOW) -> None:
        """Notes that one more stream uses the channels, and subscribes the channels that are new.

        :param after: the position after which the history of new channels is read.
        """
        for name, history_cache in self.placement(channels).history_cache_of.items():
            if history_cache.enter(name, after):
                self.all[history_cache.number].reader.subscribe([name])

    def exit(self, channels: tuple[str, ...], now: float) -> None:
        """Notes that a stream does not use the channels any more. `now` is monotonic seconds."""
        for name, history_cache in self.placement(channels).history_cache_of.items():
            history_cache.exit(name, now)

    def forget_idle(self, before: float) -> None:
        """Unsubscribes the channels that no stream has used since the monotonic time `before`."""
        for shard in self.all:
            if shard.history_cache.idle:
                gone = shard.history_cache.forget_idle(before)
                if gone:
                    shard.reader.unsubscribe(gone)

    def tend(self, now: float) -> None:
        """Lets the channel caches give memory back, once a second. `now` is monotonic seconds."""
        if now >= self._tend_at:
            self._tend_at = now + 1.0
            for shard in self.all:
                if not shard.history_cache.paused:
                    shard.history_cache.tend()

    def poke(self) -> None:
        """Makes the link readers send new subscriptions now. Each reader that has some needs a round trip."""
        for shard in self.all:
            shard.reader.poke()

    def renew_links(self) -> None:
        """Makes all link readers open new links, as if the links had broken. Does not block."""
        for shard in self.all:
            shard.reader.renew()

    @property
    def idle(self) -> bool:
        """Whether there are channels that no stream uses."""
        return any(shard.history_cache.idle for shard in self.all)

    def position(self) -> StreamCursor | None:
        """Returns the position up to which this worker has seen every event.

        Returns None until the first reply of each shard, and in a new epoch until streams got the reset.
        """
        snapshots = [shard.history_cache.snapshot for shard in self.all]
        cursors = [Cursor(snapshot.epoch, snapshot.position) for snapshot in snapshots if snapshot]
        if len(cursors) < len(snapshots):
            return None
        return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))

    def stored_at(self, entry: Entry) -> float | None:
        """Returns the monotonic time at which the broker stored an event; None if nobody knows."""
        number = int(entry.epoch[0]) if len(self.all) > 1 else 0
        return self.all[number].history_cache.broker_clock.stored_at(entry.id)

    def link(self) -> LinkState:
        """Returns the state of the links of all shards."""
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
        """Makes the threads of all link readers and history fetchers end soon."""
        for shard in self.all:
            shard.reader.close()
            shard.fetcher.close()
