"""The oracle: was anything lost, doubled or out of order?

Judged from two things alone: a ledger of what was published, with the cursor that `publish` returned or
"unknown", and a log of each client's connections. What counts is the promise: a stream gets every event of
its channels after its cursor, once and in order, or a `sse.reset`; and no cursor passes an event still due.
"""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_sse_push.protocol.cursor import EARLIEST, LOST, parse

#: A position as it is compared here: the number of its epoch, the id.
Place = tuple[int, int]

#: Problems that a verdict tells in words; the others are counted only.
TOLD = 10


class Event(NamedTuple):
    """A publication whose cursor is known."""

    cursor: str
    channels: frozenset[str]
    serial: int


@dataclass
class Counts:
    """What was published: serial numbers, channels, when it was sent, and the cursor or "unknown"."""

    events: list[Event] = field(default_factory=list)
    unknown: dict[int, frozenset[str]] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)  # serial -> monotonic time

    def note(self, cursor: str, channels: Iterable[str], serial: int) -> None:
        """Enters an event that `publish` acknowledged."""
        assert parse(cursor) is not None, cursor
        self.events.append(Event(cursor, frozenset(channels), serial))

    def doubt(self, channels: Iterable[str], serial: int) -> None:
        """Enters an event whose `publish` raised: it is stored zero or one times."""
        self.unknown[serial] = frozenset(channels)

    def newest(self, channels: frozenset[str]) -> str | None:
        """The cursor of the last acknowledged event of `channels`."""
        return next((event.cursor for event in reversed(self.events) if event.channels & channels), None)


# -- what a client logs -------------------------------------------------------------------------------------


class Got(NamedTuple):
    """An event that arrived."""

    serial: int
    cursor: str
    at: float  # monotonic time


class Opened(NamedTuple):
    """`sse.open`."""

    cursor: str
    resumed: bool
    at: float


class Told(NamedTuple):
    """`sse.reset`."""

    channels: tuple[str, ...]
    reason: str
    cursor: str | None
    at: float


class Moved(NamedTuple):
    """A heartbeat: nothing up to its cursor is still to come."""

    cursor: str
    at: float


class Ended(NamedTuple):
    """`sse.close`."""

    reason: str
    at: float


Record = Got | Opened | Told | Moved | Ended


@dataclass
class Connection:
    """One connection of a client: from the cursor it came with to its end."""

    channels: frozenset[str]
    came_with: str | None
    asked_at: float = 0.0
    answered_at: float | None = None
    status: int | None = None
    records: list[Record] = field(default_factory=list)

    def got(self) -> list[Got]:
        """The events that arrived."""
        return [record for record in self.records if isinstance(record, Got)]

    def told(self) -> list[Told]:
        """The resets that arrived."""
        return [record for record in self.records if isinstance(record, Told)]


Log = Sequence[Connection]


# -- the verdict --------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """Counts over all clients, and the first problems in words."""

    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    resets: int = 0
    delivered: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)

    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.disordered)

    def __str__(self) -> str:
        counts = f"LOST {self.lost} DUP {self.doubled} ORDER {self.disordered}"
        counts += f", {self.delivered} delivered, {self.resumed} resumed, {self.resets} resets"
        return "; ".join([counts, *self.problems])

    def tell(self, problem: str) -> None:
        if len(self.problems) < TOLD:
            self.problems.append(problem)


def judge(ledger: Counts, logs: Iterable[Log], *, complete: bool = True) -> Verdict:
    """Compares what every client logged with what was due to it.

    :param complete: the clients stayed until everything should have come: what has not is lost.
    """
    logs = list(logs)
    court = _Court(ledger, logs)
    for number, log in enumerate(logs):
        _Trial(court, f"client {number}").hear(log, complete)
    return court.verdict


class _Court:
    """What all trials share: the events in order, also doubtful ones that somebody got."""

    def __init__(self, ledger: Counts, logs: Sequence[Log]) -> None:
        self.verdict = Verdict()
        self._epochs = _epochs_in_order(ledger, logs)
        self.events = {event.serial: event for event in ledger.events}
        self._again: dict[tuple[int, int], Event] = {}  # by serial and number of the epoch
        self._admit_doubtful(ledger, logs)
        self._due: dict[frozenset[str], tuple[list[Place], list[int]]] = {}

    def _admit_doubtful(self, ledger: Counts, logs: Sequence[Log]) -> None:
        for log in logs:
            for connection in log:
                for got in connection.got():
                    known = self.events.get(got.serial)
                    if known is None and got.serial in ledger.unknown:
                        self.events[got.serial] = Event(got.cursor, ledger.unknown[got.serial], got.serial)
                    elif known is not None and known.cursor != got.cursor:
                        self._admit_again(known, got.cursor)

    def _admit_again(self, known: Event, cursor: str) -> None:
        """Enters the other id of an event that has two.

        One in each epoch is right: a broker that loses its data between two tries of a publish forgets the
        first. Each of the two is due, and who gets both must have been told of the loss in between.
        """
        again = known._replace(cursor=cursor)
        number, _ = self.place(cursor)
        known_again = self._again.setdefault((known.serial, number), again)
        if number == self.place(known.cursor)[0] or known_again != again:
            self.verdict.doubled += 1
            self.verdict.tell(f"event {known.serial} has two ids: {known.cursor}, {cursor}")

    def place(self, cursor: str) -> Place:
        found = parse(cursor)
        assert found is not None, f"{cursor!r} is no cursor"
        return self._epochs[found.epoch], found.id

    def due(self, channels: frozenset[str]) -> tuple[list[Place], list[int]]:
        """Places and serials of all events of `channels`, in order."""
        if channels not in self._due:
            all_of_them = [*self.events.values(), *self._again.values()]
            mine = [event for event in all_of_them if event.channels & channels]
            pairs = sorted((self.place(event.cursor), event.serial) for event in mine)
            self._due[channels] = ([place for place, _ in pairs], [serial for _, serial in pairs])
        return self._due[channels]


def _epochs_in_order(ledger: Counts, logs: Sequence[Log]) -> Mapping[str, int]:
    """Numbers for all epochs that anybody saw, by their first positions: these follow the clock."""
    first: dict[str, int] = {}
    cursors = [event.cursor for event in ledger.events]
    for log in logs:
        for connection in log:
            cursors += filter(None, [getattr(record, "cursor", None) for record in connection.records])
    for each in cursors:
        found = parse(each)
        if found is not None:
            first[found.epoch] = min(found.id, first.get(found.epoch, found.id))
    return {epoch: number for number, epoch in enumerate(sorted(first, key=first.__getitem__))}


class _Trial:
    """One client's log, read from its beginning to its end."""

    def __init__(self, court: _Court, name: str) -> None:
        self._court = court
        self._verdict = court.verdict
        self._name = name
        self._seen: set[str] = set()  # cursors of events
        self._serials: set[int] = set()  # of those since it was last told that all was lost
        self._at: Place | None = None  # everything that was due up to here was judged
        self._channels: frozenset[str] = frozenset()
        self._excused: set[str] = set()  # channels told lost, until their next event

    def hear(self, log: Log, complete: bool) -> None:
        for connection in log:
            self._channels = connection.channels
            if connection.came_with is None:
                self._at = None  # came anew
            elif self._at is None and parse(connection.came_with) is not None:
                self._at = self._court.place(connection.came_with)
            for record in connection.records:
                self._record(record)
        if complete and self._at is not None:
            self._pass((len(self._court._epochs), 0))

    def _record(self, record: Record) -> None:
        if isinstance(record, Got):
            self._got(record)
        elif isinstance(record, Moved):
            self._move(record.cursor)
        elif isinstance(record, Told):
            self._told(record)
        elif isinstance(record, Opened):
            self._opened(record)

    def _opened(self, record: Opened) -> None:
        self._verdict.resumed += record.resumed
        if record.cursor == EARLIEST:
            self._at, self._excused = (0, 0), set(self._channels)
        elif record.cursor != LOST:
            place = self._court.place(record.cursor)
            if self._at is not None and place != self._at:
                self._disorder(f"opened at {record.cursor}, not where it was")
            self._at = place

    def _told(self, record: Told) -> None:
        self._verdict.resets += 1
        if record.cursor is not None:
            self._at = self._court.place(record.cursor)
            self._excused.clear()
            self._serials.clear()
        else:
            self._excused |= set(record.channels)

    def _move(self, cursor: str) -> None:
        place = self._court.place(cursor)
        if self._at is None or place < self._at:
            self._disorder(f"went back to {cursor}")
        else:
            self._pass(place)
        self._at = place

    def _got(self, record: Got) -> None:
        self._verdict.delivered += 1
        event = self._court.events.get(record.serial)
        place = self._court.place(record.cursor)
        if event is None or not event.channels & self._channels:
            self._disorder(f"got {record.serial}, which was not for it")
            return
        if record.serial in self._serials or record.cursor in self._seen:
            self._verdict.doubled += 1
            self._verdict.tell(f"{self._name} got {record.serial} twice")
            return
        self._serials.add(record.serial)
        self._seen.add(record.cursor)
        if self._at is None or place <= self._at:
            self._disorder(f"got {record.serial} at {record.cursor} too late")
            return
        self._pass(place, but=record.serial)
        self._excused -= event.channels
        self._at = place

    def _pass(self, place: Place, but: int | None = None) -> None:
        """Goes on to `place`; nothing on the way may be due."""
        assert self._at is not None
        places, serials = self._court.due(self._channels)
        for serial in serials[bisect_right(places, self._at) : bisect_right(places, place)]:
            if serial != but and not self._is_excused(serial):
                self._verdict.lost += 1
                self._verdict.tell(f"{self._name} lost {serial}")

    def _is_excused(self, serial: int) -> bool:
        return bool(self._excused) and self._court.events[serial].channels & self._channels <= self._excused

    def _disorder(self, problem: str) -> None:
        self._verdict.disordered += 1
        self._verdict.tell(f"{self._name} {problem}")


def stored_serials(entries: Iterable[bytes]) -> list[int]:
    """The serial numbers of stored entries, whose data are JSON with the key `n`."""
    serials = []
    for entry in entries:
        for line in entry.split(b"\n"):
            if line.startswith(b"data: "):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    serials.append(int(json.loads(line[6:])["n"]))
    return serials
