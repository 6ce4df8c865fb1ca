"""The way of one stream to the live position: over one shard, or over several at once.

Called under the hub's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Union

from . import cursor, vector
from .brokers.base import Entry
from .cursor import EARLIEST, LOST, Cursor
from .resume import Opening, Piece, Reset, Resume, Shelf, Start, reset_of
from .shards import Route, Shard


class Step(NamedTuple):
    """What comes before the next missed events."""

    opening: Opening | None
    resets: list[Reset]


class Single:
    """The way over one shard."""

    def __init__(self, shard: Shard, resume: Resume) -> None:
        self._number = shard.number
        self._timeline = shard.timeline
        self._reader = shard.reader
        self._resume = resume

    def is_served(self) -> bool:
        """Whether nothing can be missing."""
        return self._timeline.ready and self._resume.is_served(self._timeline.moment())

    def blocks(self) -> bool:
        """Whether something must be read before the stream can go on; `wait` returns when that is here."""
        return self._timeline.blocks(self._resume)

    def step(self) -> Step:
        """Begins, or looks whether something was lost meanwhile."""
        replicas, moment = self._timeline.replicas, self._timeline.moment()
        if self._resume.at is None:
            opening, reset = self._resume.begin(replicas, moment)
            return Step(opening, [reset] if reset else [])
        reset = self._resume.reset(replicas, moment)
        return Step(None, [reset] if reset else [])

    def take(self, shelf: Shelf) -> Piece:
        """The next missed events; nothing when the stream may join.

        :param shelf: has the piece that was taken last, which may be the same.
        """
        return self._resume.take_piece(self._timeline.replicas, self._timeline.moment(), shelf)

    @property
    def account(self) -> Resume | None:
        """What knows of the gaps in what the stream was given; None where nobody keeps account of them."""
        return self._resume

    def is_even(self) -> bool:
        """Whether everything up to one position was dispatched and nothing after; else `wait` returns when
        that may be so."""
        return self._timeline.is_even(self._resume)

    def poke(self) -> None:
        """Hastens what is to be subscribed."""
        self._reader.poke()

    def wait(self, timeout: float) -> bool:
        """Blocks until something has come, at most `timeout` seconds; returns whether it has."""
        return self._resume.wait(timeout)

    @property
    def at(self) -> dict[int, int]:
        """The position up to which everything was served, by shard."""
        return {self._number: self.began}

    @property
    def began(self) -> int:
        """That position on one shard; 0 before it has begun, and where there are several."""
        return self._resume.at or 0


class Split:
    """The way over several shards: a `Resume` for each, and one cursor."""

    def __init__(self, route: Route, start: Start) -> None:
        self._route = route
        self._waiter = threading.Event()
        self._newest = start.newest if not start.cursor else None
        self._asked = start.cursor
        texts = self._texts(start.cursor)
        self._legs = {
            number: Resume(names, Start(texts.get(number), start.newest), self._waiter)
            for number, names in route.parts.items()
        }

    def _texts(self, asked: str | None) -> dict[int, str | None]:
        """The cursor to begin with on each shard. A vector that was given for other channels is none."""
        if not asked or asked == EARLIEST:
            return dict.fromkeys(self._route.parts, asked)
        given = vector.parse(asked)
        known = given.texts() if given and given.mark in (self._route.mark, vector.ANY) else {}
        if not known.keys() >= self._route.parts.keys():
            return dict.fromkeys(self._route.parts, LOST)
        return {number: known[number] for number in self._route.parts}

    def _each(self) -> Iterable[tuple[int, Shard, Resume]]:
        return ((number, self._route.shards[number], leg) for number, leg in self._legs.items())

    def is_served(self) -> bool:
        """As `Single`."""
        return all(
            shard.timeline.ready and leg.is_served(shard.timeline.moment()) for _, shard, leg in self._each()
        )

    def blocks(self) -> bool:
        """As `Single`; all shards are asked at once."""
        blocked = [number for number, shard, leg in self._each() if shard.timeline.blocks(leg)]
        return bool(blocked)

    def step(self) -> Step:
        """As `Single`. Resets are told by their reasons; each moves the cursor on the shards it is for."""
        begins = all(leg.at is None for leg in self._legs.values())
        told = {} if begins else self._parts()
        openings: dict[int, Opening] = {}
        resets: dict[int, Reset] = {}
        for number, shard, leg in self._each():
            replicas, moment = shard.timeline.replicas, shard.timeline.moment()
            if begins:
                openings[number], reset = leg.begin(replicas, moment)
            else:
                reset = leg.reset(replicas, moment)
            if reset is not None:
                resets[number] = reset
        if begins and self._newest:
            self._keep_newest(self._newest)
        if begins:
            for number, each in openings.items():
                known = cursor.parse(each.cursor) if each.cursor not in (LOST, EARLIEST) else None
                told[number] = vector.part(number, each.cursor, known or self._legs[number].cursor)
            if self._newest is not None:
                told = self._parts()
        opening = self._opening(told, openings) if begins else None
        return Step(opening, list(self._told_together(resets, told)))

    @property
    def _channels(self) -> tuple[str, ...]:
        return tuple(name for names in self._route.parts.values() for name in names)

    def _opening(self, told: Mapping[int, Cursor], openings: Mapping[int, Opening]) -> Opening:
        resumed = all(each.resumed for each in openings.values())
        if resumed and self._asked:
            return Opening(self._asked, resumed)
        return Opening(str(self._route.vector(told)), resumed)

    def _told_together(self, resets: Mapping[int, Reset], told: dict[int, Cursor]) -> Iterator[Reset]:
        kinds = dict.fromkeys((reset.reason, reset.cursor is not None) for reset in resets.values())
        for reason, moves in kinds:
            lost: list[str] = []
            for number, reset in resets.items():
                if (reset.reason, reset.cursor is not None) == (reason, moves):
                    lost += self._route.parts[number] if moves else reset.channels
                    if moves:
                        told[number] = self._legs[number].cursor
            yield reset_of(lost, self._channels, reason, self._route.vector(told) if moves else None)

    def _keep_newest(self, count: int) -> None:
        """Each shard has as many at hand; all but the newest of all are left out."""
        kept = []
        for number, shard, leg in self._each():
            missed = leg.missed(shard.timeline.replicas, shard.timeline.moment())
            kept += [(entry.id, number) for entry in missed if self._route.takes(entry, number)]
        for id, number in sorted(kept)[:-count]:
            self._legs[number].skip(id)

    def _parts(self) -> dict[int, Cursor]:
        """Where the stream stands now; on a shard of which all that is kept is wanted, before all of it."""
        return {
            number: vector.part(number, EARLIEST if leg.wants_all else "", leg.cursor)
            for number, leg in self._legs.items()
        }

    account = None

    def take(self, shelf: Shelf) -> Piece:
        """As `Single`: a piece of what was missed on one shard, with cursors over all."""
        return Piece(self._next_missed(), None, True)

    def _next_missed(self) -> list[Entry]:
        for number, shard, leg in self._each():
            while True:
                at = leg.at
                entries = leg.take(shard.timeline.replicas, shard.timeline.moment())
                if not entries:
                    break
                now = self._parts()
                taken = [entry for entry in entries if self._route.takes(entry, number)]
                if taken:
                    return [self._placed(entry, now, number) for entry in taken]
                assert leg.at != at  # it goes on, or this would never end
        return []

    def _placed(self, entry: Entry, now: Mapping[int, Cursor], number: int) -> Entry:
        return entry.placed(str(self._route.vector({**now, number: entry.position})))

    def is_even(self) -> bool:
        """As `Single`, on each shard."""
        odd = [number for number, shard, leg in self._each() if not shard.timeline.is_even(leg)]
        return not odd

    def poke(self) -> None:
        """As `Single`."""
        for shard in self._route.shards.values():
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
CatchUp = Union[Single, Split]  # noqa: UP007 (Python 3.10 evaluates it)


def start_of(route: Route, start: Start) -> Start:
    """Where a stream of one shard begins that came with a cursor over several: it counts if it is for any
    channels."""
    given = vector.parse(start.cursor) if start.cursor else None
    if given is None:
        return start
    texts = given.texts() if given.mark == vector.ANY else {}
    return Start(texts.get(route.only.number, LOST))


def way_of(route: Route, start: Start) -> CatchUp:
    """The way of a stream over the shards of a route."""
    if route.is_split:
        return Split(route, start)
    return Single(route.only, Resume(route.channels, start_of(route, start)))
