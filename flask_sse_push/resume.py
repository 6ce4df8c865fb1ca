"""The way of one stream from its cursor to the live position.

Pure: it works on replicas that are at hand and says what is missing. The hub calls it under its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import NamedTuple

from . import cursor
from .brokers.base import BROADCAST, Entry
from .cursor import EARLIEST, LOST, Cursor, Lineage, belongs
from .replica import NOW, Reach, Replica
from .vector import Vector
from .wire import control

#: Bytes of missed events handed over in one piece: what a slow client may hold in memory while it catches up.
MAX_PIECE = 65_536


class Start(NamedTuple):
    """Where a client asked to begin: after a cursor, with the newest events, or, with neither, live."""

    cursor: str | None = None
    newest: int | None = None


class Moment(NamedTuple):
    """Where the worker stands: up to `position` nothing is missing, up to `seen` some events are here."""

    epoch: str
    position: int
    seen: int
    base: int = 0  # where the worker's knowledge of the epoch begins
    lineage: Lineage = {}

    def holds(self, cursor: Cursor) -> bool:
        """Whether `cursor` counts in this epoch: not one that a failover left behind."""
        return belongs(cursor, self.epoch, self.lineage)


class Opening(NamedTuple):
    """How a stream begins: the cursor of its `sse.open`, and whether nothing was missed."""

    cursor: str
    resumed: bool


class Gap(NamedTuple):
    """A channel of which a stream got nothing after `until` and up to `after`."""

    channel: str
    until: int
    after: int


class Reset(NamedTuple):
    """Channels whose missed events are gone. `cursor` is set when that is all there is to say."""

    channels: list[str]
    reason: str
    cursor: str | None


class Piece:
    """Missed entries that go out together."""

    __slots__ = ("at", "entries", "frames", "limited", "whole")

    def __init__(self, entries: list[Entry], at: int | None, whole: bool) -> None:
        self.entries = entries
        self.at = at  # everything up to here is served with it; None: nothing was missed
        self.whole = whole  # whether it is all that was missed
        self.limited = any(entry.exclude for entry in entries)  # some are not for everybody
        self.frames: dict[object, bytes] = {}  # of one that is for everybody, by how they are put together


class Shelf:
    """The piece that was taken last: when thousands come back at once, most of them missed the same."""

    __slots__ = ("key", "piece")

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.piece = Piece([], None, True)


class Resume:
    """Serves what one client missed, at its own pace.

    :param waiter: is set when something this stream waits for is here; without one it makes its own.
    """

    def __init__(
        self, channels: tuple[str, ...], start: Start, waiter: threading.Event | None = None
    ) -> None:
        self.channels = channels  # BROADCAST included
        self._start = start
        self._asked = cursor.parse(start.cursor) if start.cursor else None
        self._earliest = start.cursor == EARLIEST or (not start.cursor and start.newest is not None)
        self._at: int | None = None  # everything up to here was served
        self._settled: threading.Event | None = None
        self._served: Moment | None = None  # everything up to this moment was served
        self._waiter = waiter  # made only for a stream that must wait
        self._epoch = ""
        self._from: dict[str, int] = {}  # channels that begin later than `_at`
        self.gaps: list[Gap] = []  # for whoever keeps account of what the stream has had, who takes them out

    def is_served(self, moment: Moment) -> bool:
        """Whether nothing can be missing, because nothing has come since everything was served."""
        return moment == self._served and self._at is not None and self._at <= moment.position

    def waiter(self) -> threading.Event:
        """What is set when something this stream waits for is here."""
        if self._waiter is None:
            self._waiter = threading.Event()
        return self._waiter

    def wait(self, timeout: float) -> bool:
        """Blocks until something has come, at most `timeout` seconds; returns whether it has."""
        arrived = self.waiter().wait(max(0.0, timeout))
        self.waiter().clear()
        return arrived

    @property
    def at(self) -> int | None:
        """The position up to which everything was served; None before it has begun."""
        return self._at

    @property
    def cursor(self) -> Cursor:
        """That position with its epoch; only once it has begun."""
        assert self._at is not None
        return Cursor(self._epoch, self._at)

    @property
    def wants_all(self) -> bool:
        """Whether it stands before all that is kept, of which nothing was served yet."""
        return self._earliest and self._at == 0

    def is_ahead(self, moment: Moment) -> bool:
        """Whether the client may know more than this worker: then the worker must look again."""
        if self._at is not None:
            return self._at > moment.position
        known = self._asked
        return known is not None and (not moment.holds(known) or known.id > moment.position)

    def must_settle(self, moment: Moment) -> bool:
        """Whether the worker must first reach a moment after the client's arrival.

        Before the stream has begun, once is enough: a client still ahead then has a cursor nobody gave it.
        """
        if not self.is_ahead(moment) or (self._at is not None and not self._goes_on(moment)):
            return False
        return self._at is not None or self._settled is None or not self._settled.is_set()

    def settling(self) -> threading.Event | None:
        """What is to be set when that moment is reached; None when it is under way already."""
        if self._settled is not None and not self._settled.is_set():
            return None
        self._settled = threading.Event()
        return self._settled

    def needs(self, replicas: Mapping[str, Replica], moment: Moment | None) -> dict[str, int]:
        """Channels whose replicas do not reach back far enough, each with the position needed."""
        if self._at is not None:
            same = moment is not None and self._goes_on(moment)
            wanted = {name: self._after(name) if same else NOW for name in self.channels}
        elif self._earliest:
            return {name: 0 for name in self.channels if not replicas[name].whole}
        elif self._asked and not (moment and self.is_ahead(moment)):
            wanted = dict.fromkeys(self.channels, self._asked.id)
        else:
            wanted = dict.fromkeys(self.channels, NOW)
        return {name: at for name, at in wanted.items() if replicas[name].reach(at) is Reach.ABSENT}

    def _goes_on(self, moment: Moment) -> bool:
        """Whether the position of a stream that has begun counts at `moment`."""
        assert self._at is not None
        furthest = max((self._at, *self._from.values()))
        return moment.epoch == self._epoch or moment.holds(Cursor(self._epoch, furthest))

    def _after(self, name: str) -> int:
        assert self._at is not None
        return max(self._at, self._from.get(name, 0))

    def begin(self, replicas: Mapping[str, Replica], moment: Moment) -> tuple[Opening, Reset | None]:
        """Fixes the position to start from, once nothing is needed and the worker is not behind."""
        self._epoch = moment.epoch
        if self._earliest:
            return self._begin_with_kept(replicas, moment), None
        if not self._start.cursor:
            self._at = moment.position
            return Opening(str(Cursor(moment.epoch, self._at)), False), None
        if self._asked is None or self.is_ahead(moment):
            reason = "epoch" if self._asked and self._asked.epoch != moment.epoch else "cursor"
            return Opening(LOST, False), self._lose(list(self.channels), reason, moment)
        self._at = self._asked.id
        reset = self.reset(replicas, moment)
        everything = reset is not None and reset.cursor is not None
        return Opening(LOST if everything else str(self._asked), reset is None), reset

    def _begin_with_kept(self, replicas: Mapping[str, Replica], moment: Moment) -> Opening:
        self._at = 0
        self._from = {name: replicas[name].floor for name in self.channels}
        kept = [entry for entry in self.missed(replicas, moment) if not entry.is_expired(moment.seen)]
        newest = self._start.newest
        if newest == 0:
            self._at, self._from = moment.position, {}
        elif self._start.cursor or newest is None or len(kept) <= newest:
            self.gaps += [Gap(name, 0, floor) for name, floor in self._from.items()]
            return Opening(EARLIEST, False)
        else:
            self._at = kept[-newest - 1].id
        return Opening(str(Cursor(moment.epoch, self._at)), False)

    def skip(self, until: int) -> None:
        """Leaves out what was missed up to the position `until`."""
        self._at = max(self._at or 0, until)

    def reset(self, replicas: Mapping[str, Replica], moment: Moment) -> Reset | None:
        """Gives up on channels whose missed events are gone; they go on from here."""
        goes_on = self._goes_on(moment)
        self._epoch = moment.epoch
        if not goes_on:
            self._from = {}
            return self._lose(list(self.channels), "epoch", moment)
        lost = [name for name in self.channels if replicas[name].reach(self._after(name)) is Reach.LOST]
        if not lost:
            return None
        self.gaps += [Gap(name, self._after(name), moment.position) for name in lost]
        return self._lose(lost, "history", moment)

    def _lose(self, lost: list[str], reason: str, moment: Moment) -> Reset:
        if len(lost) == len(self.channels):
            self._at, self._from = moment.position, {}
            return reset_of(lost, self.channels, reason, Cursor(moment.epoch, moment.position))
        for name in lost:
            self._from[name] = moment.position
        return reset_of(lost, self.channels, reason, None)

    def take(self, replicas: Mapping[str, Replica], moment: Moment) -> list[Entry]:
        """The next missed entries in order, a bounded piece; nothing when the stream may join."""
        return self.take_piece(replicas, moment, Shelf()).entries

    def take_piece(self, replicas: Mapping[str, Replica], moment: Moment, shelf: Shelf) -> Piece:
        """The same as it is handed on to others that need it.

        :param shelf: has the piece that was taken last, which may be the same.
        """
        key = self.channels, self._at, self._from, moment
        if shelf.key == key:
            piece = shelf.piece
        else:
            piece = self._piece(replicas, moment)
            if self._reaches(replicas):  # else more of it may come without another moment
                shelf.key, shelf.piece = (self.channels, self._at, dict(self._from), moment), piece
        if piece.at is not None:
            self._at = piece.at
        if piece.whole and self._reaches(replicas):
            self._served = moment
        return piece

    def _piece(self, replicas: Mapping[str, Replica], moment: Moment) -> Piece:
        missed = self.missed(replicas, moment)
        entries: list[Entry] = []
        size = 0
        for entry in missed:
            if entry.is_expired(moment.seen):
                continue
            if entries and size + len(entry.frame) > MAX_PIECE:
                break
            size += len(entry.frame)
            entries.append(entry)
        at = (entries or missed)[-1].id if missed else None
        return Piece(entries, at, not missed or at == missed[-1].id)

    def _reaches(self, replicas: Mapping[str, Replica]) -> bool:
        """Whether the replicas have everything after the stream's position: one that was read while the
        worker's position stood still may begin above it."""
        return all(replicas[name].reach(self._after(name)) is Reach.READY for name in self.channels)

    def missed(self, replicas: Mapping[str, Replica], moment: Moment) -> list[Entry]:
        """Entries of all channels by id; one that is in several of them once."""
        found = {}
        for name in self.channels:
            for entry in replicas[name].since(self._after(name), moment.seen):
                found[entry.id] = entry
        return [found[id] for id in sorted(found)]


def reset_of(
    lost: list[str], channels: Collection[str], reason: str, cursor: Cursor | Vector | None
) -> Reset:
    """A reset as clients read it. Broadcasts have no channel name; `*` stands for them when need be."""
    named = [name for name in lost if name != BROADCAST]
    all_named = len(named) == sum(name != BROADCAST for name in channels)
    if BROADCAST in lost and not (named and all_named):
        named.append(BROADCAST)
    return Reset(named, reason, str(cursor) if cursor else None)


def reset_frame(reset: Reset) -> bytes:
    """`sse.reset`: these channels lost events, fetch their state anew."""
    return control("sse.reset", {"channels": reset.channels, "reason": reset.reason}, reset.cursor)
