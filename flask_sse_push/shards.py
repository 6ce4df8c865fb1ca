"""The shards of the broker as one worker knows them: each has a timeline, fed by its own ear and hand.

Each shard has an order of its own; between two shards there is none. All but `redis+cluster://` have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from .brokers.base import BROADCAST, Broker, Entry, shard_of
from .config import Settings
from .cursor import Cursor
from .fetcher import Fetcher
from .reader import Reader
from .replica import NOW, Replica
from .resume import Moment
from .timeline import Item, Timeline
from .vector import ANY, Vector, mark_of

#: Routes kept: many streams have the same channels, and each asks for its route several times.
MAX_ROUTES = 1024

#: What a reader or a fetcher brought, and where it belongs.
ShardItem = tuple[Timeline, Item]


class Shard:
    """One shard: what was seen of it, and what hears and asks."""

    def __init__(
        self, number: int, broker: Broker, inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        def deliver(item: Item) -> None:
            put((self.timeline, item))

        self.number = number
        self.reader = Reader(broker, inbox, deliver, silence=2 * settings.probe)
        self.fetcher = Fetcher(broker, inbox, deliver, settings.probe, expect_echo=self.reader.expect_echo)
        self.timeline = Timeline(self.fetcher, settings.history_size, settings.replica_bytes)

    def enter(self, name: str, after: int = NOW) -> None:
        """Counts a stream that uses the channel.

        :param after: the position from which on its history is wanted as soon as it is subscribed.
        """
        if self.timeline.enter(name, after):
            self.reader.subscribe([name])

    def told(self, at_least: int) -> Cursor:
        """Where streams stand that have had the event `at_least`."""
        moment = self.timeline.told()
        return Cursor(moment.epoch, max(moment.position, at_least))


class LinkState(NamedTuple):
    """How the links of all shards do: the worst of each figure. Times are monotonic seconds."""

    connected: bool
    heard_at: float
    proved_at: float
    reconnects: int
    probe_seconds: float | None


class Route:
    """Where a set of channels lies. Broadcasts are taken from the shard of the first channel by its name."""

    __slots__ = ("_number", "channels", "mark", "parts", "shards")

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
        self.mark = mark_of(named) if len(numbers) > 1 else ""

    @property
    def is_split(self) -> bool:
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

    def at(self, positions: Mapping[int, int]) -> Cursor | Vector:
        """The cursor of streams that have everything up to a position on each shard."""
        cursors = {
            number: Cursor(shard.timeline.moment().epoch, positions[number])
            for number, shard in self.shards.items()
        }
        return self.vector(cursors) if self.is_split else cursors[self.only.number]

    def vector(self, parts: Mapping[int, Cursor]) -> Vector:
        """The cursor made of a position on each shard."""
        return Vector(self.mark, tuple(parts[number] for number in self.parts))

    def told(self, at: Mapping[int, int]) -> Vector:
        """Where streams stand that have had the event `at` of each shard."""
        return self.vector({number: shard.told(at[number]) for number, shard in self.shards.items()})

    def replicas(self) -> dict[str, Replica]:
        """The replicas of the channels, which streams use."""
        return {name: self.shards[number].timeline.replicas[name] for name, number in self._number.items()}

    def positions(self) -> dict[int, int]:
        """How far each shard has provably been seen; only when all are ready."""
        return {number: shard.timeline.moment().position for number, shard in self.shards.items()}

    def enter(self, names: Iterable[str]) -> None:
        """Counts a stream that uses some of the channels."""
        for name in names:
            self.shard(name).enter(name)

    def exit(self, names: Iterable[str], now: float) -> None:
        """Counts a stream that left some of the channels. `now` is monotonic seconds."""
        for name in names:
            self.shard(name).timeline.exit(name, now)


class Shards:
    """All shards of one worker."""

    def __init__(
        self, brokers: Sequence[Broker], inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        self.all = [Shard(number, each, inbox, put, settings) for number, each in enumerate(brokers)]
        #: Where channels lie.
        self.route: Callable[[tuple[str, ...]], Route] = lru_cache(MAX_ROUTES)(partial(Route, self.all))

    def enter(self, channels: tuple[str, ...]) -> None:
        """Counts a stream that uses the channels."""
        self.route(channels).enter(channels)

    def exit(self, channels: tuple[str, ...], now: float) -> None:
        """Counts a stream that left the channels. `now` is monotonic seconds."""
        self.route(channels).exit(channels, now)

    def forget_idle(self, before: float) -> None:
        """Lets go of channels that no stream has used since `before`."""
        for shard in self.all:
            shard.reader.unsubscribe(shard.timeline.forget_idle(before))

    def poke(self) -> None:
        """Makes the readers look at what is to be subscribed. A round trip for each that must."""
        for shard in self.all:
            shard.reader.poke()

    @property
    def idle(self) -> bool:
        """Whether there are channels that no stream uses."""
        return any(shard.timeline.idle for shard in self.all)

    def position(self) -> Cursor | Vector | None:
        """How far the worker has provably seen; None before it knows."""
        if not all(shard.timeline.ready for shard in self.all):
            return None
        cursors = [Cursor(moment.epoch, moment.position) for moment in self.moments()]
        return cursors[0] if len(cursors) == 1 else Vector(ANY, tuple(cursors))

    def moments(self) -> list[Moment]:
        """Where the worker stands on each shard; only when all are ready."""
        return [shard.timeline.moment() for shard in self.all]

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
