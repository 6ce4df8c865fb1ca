"""The shards of the broker as one worker knows them: each has a timeline, fed by its own ear and hand.

Each shard has an order of its own; between two shards there is none. All but `redis+cluster://` have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..brokers.base import Broker
from ..config import Settings
from ..protocol.cursor import Cursor
from ..protocol.shard_cursor import ANY_CHANNELS, ShardCursor
from .placement import MAX_PLACEMENTS, Placement
from .position import Snapshot
from .shard import Shard, ShardItem


class LinkState(NamedTuple):
    """How the links of all shards do: the worst of each figure. Times are monotonic seconds."""

    connected: bool
    heard_at: float
    proved_at: float
    reconnects: int
    probe_seconds: float | None


class Shards:
    """All shards of one worker."""

    def __init__(
        self, brokers: Sequence[Broker], inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        self.all = [Shard(number, each, inbox, put, settings) for number, each in enumerate(brokers)]
        #: Where channels lie.
        self.placement: Callable[[tuple[str, ...]], Placement] = lru_cache(MAX_PLACEMENTS)(
            partial(Placement, self.all)
        )

    def enter(self, channels: tuple[str, ...]) -> None:
        """Counts a stream that uses the channels."""
        self.placement(channels).enter(channels)

    def exit(self, channels: tuple[str, ...], now: float) -> None:
        """Counts a stream that left the channels. `now` is monotonic seconds."""
        self.placement(channels).exit(channels, now)

    def forget_idle(self, before: float) -> None:
        """Lets go of channels that no stream has used since `before`."""
        for shard in self.all:
            shard.reader.unsubscribe(shard.history_cache.forget_idle(before))

    def poke(self) -> None:
        """Makes the readers look at what is to be subscribed. A round trip for each that must."""
        for shard in self.all:
            shard.reader.poke()

    @property
    def idle(self) -> bool:
        """Whether there are channels that no stream uses."""
        return any(shard.history_cache.idle for shard in self.all)

    def position(self) -> Cursor | ShardCursor | None:
        """How far the worker has provably seen; None before it knows."""
        if not all(shard.history_cache.ready for shard in self.all):
            return None
        cursors = [Cursor(snapshot.epoch, snapshot.position) for snapshot in self.snapshots()]
        return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))

    def snapshots(self) -> list[Snapshot]:
        """Where the worker stands on each shard; only when all are ready."""
        return [shard.history_cache.snapshot() for shard in self.all]

    def link(self) -> LinkState:
        """How the links do."""
        readers = [shard.reader for shard in self.all]
        return LinkState(
            all(each.connected for each in readers),
            min(each.heard_at for each in readers),
            min(each.proved_at for each in readers),
            sum(max(0, each.reconnects) for each in readers),
            max((each.probe_seconds for each in readers if each.probe_seconds is not None), default=None),
        )

    def close(self) -> None:
        """Lets all threads return soon."""
        for shard in self.all:
            shard.reader.close()
            shard.fetcher.close()
