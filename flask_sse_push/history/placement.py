"""Which shards a set of channels lies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..protocol.channel import BROADCAST, shard_of
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.shard_cursor import Position, ShardCursor, StreamCursor, channel_hash
from .channel_cache import ChannelCache
from .history_cache import HistoryCache


class Placement:
    """The shards that a set of channels lies on, with their history caches.

    Every shard has the broadcast channel. A stream gets broadcasts from one shard: the shard of the channel
    whose name sorts first.
    """

    def __init__(self, history_caches: Sequence[HistoryCache], channels: Sequence[str]) -> None:
        named = [name for name in channels if name != BROADCAST]
        number_of = {name: shard_of(name, len(history_caches)) for name in named}
        if BROADCAST in channels:
            number_of[BROADCAST] = number_of[min(named)] if named else 0
        numbers = sorted(set(number_of.values()))
        self.channels = tuple(channels)
        #: The history cache of each channel's shard.
        self.history_cache_of = {name: history_caches[number_of[name]] for name in channels}
        #: The history caches of the channels' shards, by the number of the shard.
        self.history_caches = {number: history_caches[number] for number in numbers}
        #: The first of `history_caches`, and the only one if all channels lie on one shard.
        self.history_cache = history_caches[numbers[0] if numbers else 0]
        #: The channels on each shard, in the order of `channels`.
        self.parts = {
            number: tuple(name for name in channels if number_of[name] == number) for number in numbers
        }
        #: Whether the channels lie on several shards.
        self.is_sharded = len(numbers) > 1
        self.channel_hash = channel_hash(named) if self.is_sharded else ""

    def delivers(self, entry: Entry, shard: int) -> bool:
        """Whether streams with these channels get the event from the shard with the number `shard`.

        An event may be stored on several shards. The streams get it from one shard: the shard of the first of
        the event's channels that the streams listen to.
        """
        return not entry.shared or shard == next(
            self.history_cache_of[name].number for name in entry.channels if name in self.history_cache_of
        )

    def cursor(self, positions: Position) -> StreamCursor:
        """Returns the cursor of streams that have every event up to the given position on each shard."""
        cursors = {
            number: Cursor(history_cache.announced.epoch, positions[number])
            for number, history_cache in self.history_caches.items()
        }
        return self.shard_cursor(cursors) if self.is_sharded else cursors[self.history_cache.number]

    def shard_cursor(self, parts: Mapping[int, Cursor]) -> ShardCursor:
        """Returns one cursor over all shards, made of the cursors of the shards."""
        return ShardCursor(self.channel_hash, tuple(parts[number] for number in self.parts))

    def stream_cursor(self, at_least: Position) -> ShardCursor:
        """Returns the cursor of streams that are up to date: they got every event that the worker sent.

        :param at_least: for each shard, the cursor has this position or a later one, because these streams
            already have every event up to this position.
        """
        return self.shard_cursor(
            {
                number: history_cache.stream_cursor(at_least[number])
                for number, history_cache in self.history_caches.items()
            }
        )

    def caches(self) -> dict[str, ChannelCache]:
        """Returns the cache of each channel. Call this only while streams use the channels."""
        return {name: history_cache.caches[name] for name, history_cache in self.history_cache_of.items()}

    def positions(self) -> Position:
        """Returns the worker's position on each shard. Call this only after the first reply of each shard."""
        return {
            number: history_cache.announced.position for number, history_cache in self.history_caches.items()
        }
