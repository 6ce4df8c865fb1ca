"""Which shards a set of channels lies on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..protocol.channel import BROADCAST, shard_of
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ShardCursor, channel_hash
from .channel_cache import ChannelCache
from .shard import Shard

#: Routes kept: many streams have the same channels, and each asks for its route several times.
MAX_PLACEMENTS = 1024


class Placement:
    """Where a set of channels lies. Broadcasts are taken from the shard of the first channel by its name."""

    __slots__ = ("_number", "channel_hash", "channels", "parts", "shards")

    def __init__(self, shards: Sequence[Shard], channels: Sequence[str]) -> None:
        named = [name for name in channels if name != BROADCAST]
        self._number = {name: shard_of(name, len(shards)) for name in named}
        if BROADCAST in channels:
            self._number[BROADCAST] = self._number[min(named)] if named else 0
        self.channels = tuple(channels)
        numbers = sorted(set(self._number.values()))
        #: The channels on each shard, in the order given.
        self.parts = {
            number: tuple(name for name in channels if self._number[name] == number) for number in numbers
        }
        self.shards = {number: shards[number] for number in numbers}
        self.channel_hash = channel_hash(named) if len(numbers) > 1 else ""

    @property
    def is_sharded(self) -> bool:
        """Whether it takes more than one shard."""
        return len(self.parts) > 1

    @property
    def only(self) -> Shard:
        """The shard of all, when there is one."""
        (shard,) = self.shards.values()
        return shard

    def shard(self, name: str) -> Shard:
        """The shard of one of the channels."""
        return self.shards[self._number[name]]

    def takes(self, entry: Entry, shard: int) -> bool:
        """Whether an event comes to the streams from this shard, should it lie on others too.

        It comes from that of the first of its channels that they listen to.
        """
        return not entry.shared or shard == next(
            self._number[name] for name in entry.channels if name in self._number
        )

    def at(self, positions: Mapping[int, int]) -> Cursor | ShardCursor:
        """The cursor of streams that have everything up to a position on each shard."""
        cursors = {
            number: Cursor(shard.history_cache.snapshot().epoch, positions[number])
            for number, shard in self.shards.items()
        }
        return self.vector(cursors) if self.is_sharded else cursors[self.only.number]

    def vector(self, parts: Mapping[int, Cursor]) -> ShardCursor:
        """The cursor made of a position on each shard."""
        return ShardCursor(self.channel_hash, tuple(parts[number] for number in self.parts))

    def told(self, at: Mapping[int, int]) -> ShardCursor:
        """Where streams stand that have had the event `at` of each shard."""
        return self.vector({number: shard.told(at[number]) for number, shard in self.shards.items()})

    def caches(self) -> dict[str, ChannelCache]:
        """The replicas of the channels, which streams use."""
        return {name: self.shards[number].history_cache.caches[name] for name, number in self._number.items()}

    def positions(self) -> dict[int, int]:
        """How far each shard has provably been seen; only when all are ready."""
        return {number: shard.history_cache.snapshot().position for number, shard in self.shards.items()}

    def enter(self, names: Iterable[str]) -> None:
        """Counts a stream that uses some of the channels."""
        for name in names:
            self.shard(name).enter(name)

    def exit(self, names: Iterable[str], now: float) -> None:
        """Counts a stream that left some of the channels. `now` is monotonic seconds."""
        for name in names:
            self.shard(name).history_cache.exit(name, now)
