"""The way of one stream to the live position: over one shard, or over several at once.

Called under the hub's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Union

from ..protocol import cursor, shard_cursor
from ..protocol.cursor import EARLIEST, LOST, Cursor
from ..protocol.entry import Entry
from .placement import Placement
from .position import Opening, Reset, StartPoint, reset_of
from .shard import Shard
from .shard_recovery import ChunkCache, MissedChunk, ShardRecovery


class Step(NamedTuple):
    """What comes before the next missed events."""

    opening: Opening | None
    resets: list[Reset]


class SingleShardRecovery:
    """The way over one shard."""

    def __init__(self, shard: Shard, shard_recovery: ShardRecovery) -> None:
        self._number = shard.number
        self._history_cache = shard.history_cache
        self._reader = shard.reader
        self._shard_recovery = shard_recovery

    def is_served(self) -> bool:
        """Whether nothing can be missing."""
        return self._history_cache.ready and self._shard_recovery.is_served(self._history_cache.snapshot())

    def blocks(self) -> bool:
        """Whether something must be read before the stream can go on; `wait` returns when that is here."""
        return self._history_cache.blocks(self._shard_recovery)

    def step(self) -> Step:
        """Begins, or looks whether something was lost meanwhile."""
        caches, snapshot = self._history_cache.caches, self._history_cache.snapshot()
        if self._shard_recovery.at is None:
            opening, reset = self._shard_recovery.begin(caches, snapshot)
            return Step(opening, [reset] if reset else [])
        reset = self._shard_recovery.reset(caches, snapshot)
        return Step(None, [reset] if reset else [])

    def take(self, chunk_cache: ChunkCache) -> MissedChunk:
        """The next missed events; nothing when the stream may join.

        :param shelf: has the piece that was taken last, which may be the same.
        """
        return self._shard_recovery.take_piece(
            self._history_cache.caches, self._history_cache.snapshot(), chunk_cache
        )

    @property
    def account(self) -> ShardRecovery | None:
        """What knows of the gaps in what the stream was given; None where nobody keeps account of them."""
        return self._shard_recovery

    def is_even(self) -> bool:
        """Whether everything up to one position was dispatched and nothing after; else `wait` returns when
        that may be so."""
        return self._history_cache.is_even(self._shard_recovery)

    def poke(self) -> None:
        """Hastens what is to be subscribed."""
        self._reader.poke()

    def wait(self, timeout: float) -> bool:
        """Blocks until something has come, at most `timeout` seconds; returns whether it has."""
        return self._shard_recovery.wait(timeout)

    @property
    def at(self) -> dict[int, int]:
        """The position up to which everything was served, by shard."""
        return {self._number: self.began}

    @property
    def began(self) -> int:
        """That position on one shard; 0 before it has begun, and where there are several."""
        return self._shard_recovery.at or 0


class MultiShardRecovery:
    """The way over several shards: a `Resume` for each, and one cursor."""

    def __init__(self, placement: Placement, start: StartPoint) -> None:
        self._placement = placement
        self._waiter = threading.Event()
        self._newest = start.newest if not start.cursor else None
        self._asked = start.cursor
        texts = self._texts(start.cursor)
        self._legs = {
            number: ShardRecovery(names, StartPoint(texts.get(number), start.newest), self._waiter)
            for number, names in placement.parts.items()
        }

    def _texts(self, asked: str | None) -> dict[int, str | None]:
        """The cursor to begin with on each shard. A vector that was given for other channels is none."""
        if not asked or asked == EARLIEST:
            return dict.fromkeys(self._placement.parts, asked)
        given = shard_cursor.parse(asked)
        known = (
            given.texts()
            if given and given.channel_hash in (self._placement.channel_hash, shard_cursor.ANY_CHANNELS)
            else {}
        )
        if not known.keys() >= self._placement.parts.keys():
            return dict.fromkeys(self._placement.parts, LOST)
        return {number: known[number] for number in self._placement.parts}

    def _each(self) -> Iterable[tuple[int, Shard, ShardRecovery]]:
        return ((number, self._placement.shards[number], leg) for number, leg in self._legs.items())

    def is_served(self) -> bool:
        """As `Single`."""
        return all(
            shard.history_cache.ready and leg.is_served(shard.history_cache.snapshot())
            for _, shard, leg in self._each()
        )

    def blocks(self) -> bool:
        """As `Single`; all shards are asked at once."""
        blocked = [number for number, shard, leg in self._each() if shard.history_cache.blocks(leg)]
        return bool(blocked)

    def step(self) -> Step:
        """As `Single`. Resets are told by their reasons; each moves the cursor on the shards it is for."""
        begins = all(leg.at is None for leg in self._legs.values())
        told = {} if begins else self._parts()
        openings: dict[int, Opening] = {}
        resets: dict[int, Reset] = {}
        for number, shard, leg in self._each():
            caches, snapshot = shard.history_cache.caches, shard.history_cache.snapshot()
            if begins:
                openings[number], reset = leg.begin(caches, snapshot)
            else:
                reset = leg.reset(caches, snapshot)
            if reset is not None:
                resets[number] = reset
        if begins and self._newest:
            self._keep_newest(self._newest)
        if begins:
            for number, each in openings.items():
                known = cursor.parse(each.cursor) if each.cursor not in (LOST, EARLIEST) else None
                told[number] = shard_cursor.part(number, each.cursor, known or self._legs[number].cursor)
            if self._newest is not None:
                told = self._parts()
        opening = self._opening(told, openings) if begins else None
        return Step(opening, list(self._told_together(resets, told)))

    @property
    def _channels(self) -> tuple[str, ...]:
        return tuple(name for names in self._placement.parts.values() for name in names)

    def _opening(self, told: Mapping[int, Cursor], openings: Mapping[int, Opening]) -> Opening:
        resumed = all(each.resumed for each in openings.values())
        if resumed and self._asked:
            return Opening(self._asked, resumed)
        return Opening(str(self._placement.vector(told)), resumed)

    def _told_together(self, resets: Mapping[int, Reset], told: dict[int, Cursor]) -> Iterator[Reset]:
        kinds = dict.fromkeys((reset.reason, reset.cursor is not None) for reset in resets.values())
        for reason, moves in kinds:
            lost: list[str] = []
            for number, reset in resets.items():
                if (reset.reason, reset.cursor is not None) == (reason, moves):
                    lost += self._placement.parts[number] if moves else reset.channels
                    if moves:
                        told[number] = self._legs[number].cursor
            yield reset_of(lost, self._channels, reason, self._placement.vector(told) if moves else None)

    def _keep_newest(self, count: int) -> None:
        """Each shard has as many at hand; all but the newest of all are left out."""
        kept = []
        for number, shard, leg in self._each():
            missed = leg.missed(shard.history_cache.caches, shard.history_cache.snapshot())
            kept += [(entry.id, number) for entry in missed if self._placement.takes(entry, number)]
        for id, number in sorted(kept)[:-count]:
            self._legs[number].skip(id)

    def _parts(self) -> dict[int, Cursor]:
        """Where the stream stands now; on a shard of which all that is kept is wanted, before all of it."""
        return {
            number: shard_cursor.part(number, EARLIEST if leg.wants_all else "", leg.cursor)
            for number, leg in self._legs.items()
        }

    account = None

    def take(self, chunk_cache: ChunkCache) -> MissedChunk:
        """As `Single`: a piece of what was missed on one shard, with cursors over all."""
        return MissedChunk(self._next_missed(), None, True)

    def _next_missed(self) -> list[Entry]:
        for number, shard, leg in self._each():
            while True:
                at = leg.at
                entries = leg.take(shard.history_cache.caches, shard.history_cache.snapshot())
                if not entries:
                    break
                now = self._parts()
                taken = [entry for entry in entries if self._placement.takes(entry, number)]
                if taken:
                    return [self._placed(entry, now, number) for entry in taken]
                assert leg.at != at  # it goes on, or this would never end
        return []

    def _placed(self, entry: Entry, now: Mapping[int, Cursor], number: int) -> Entry:
        return entry.placed(str(self._placement.vector({**now, number: entry.position})))

    def is_even(self) -> bool:
        """As `Single`, on each shard."""
        odd = [number for number, shard, leg in self._each() if not shard.history_cache.is_even(leg)]
        return not odd

    def poke(self) -> None:
        """As `Single`."""
        for shard in self._placement.shards.values():
            shard.reader.poke()

    def wait(self, timeout: float) -> bool:
        """As `Single`."""
        arrived = self._waiter.wait(max(0.0, timeout))
        self._waiter.clear()
        return arrived

    @property
    def at(self) -> dict[int, int]:
        """As `Single`."""
        return {number: leg.at or 0 for number, leg in self._legs.items()}

    @property
    def began(self) -> int:
        """As `Single`."""
        return 0


#: How a stream catches up.
Recovery = Union[SingleShardRecovery, MultiShardRecovery]  # noqa: UP007 (Python 3.10 evaluates it)


def start_on_one_shard(placement: Placement, start: StartPoint) -> StartPoint:
    """Where a stream of one shard begins that came with a cursor over several: it counts if it is for any
    channels."""
    given = shard_cursor.parse(start.cursor) if start.cursor else None
    if given is None:
        return start
    texts = given.texts() if given.channel_hash == shard_cursor.ANY_CHANNELS else {}
    return StartPoint(texts.get(placement.only.number, LOST))


def recovery_for(placement: Placement, start: StartPoint) -> Recovery:
    """The way of a stream over the shards of a route."""
    if placement.is_sharded:
        return MultiShardRecovery(placement, start)
    return SingleShardRecovery(
        placement.only, ShardRecovery(placement.channels, start_on_one_shard(placement, start))
    )
