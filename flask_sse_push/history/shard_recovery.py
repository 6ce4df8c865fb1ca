"""The way of one stream from its cursor to the live position.

Pure: it works on replicas that are at hand and says what is missing. The hub calls it under its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..protocol import cursor
from ..protocol.cursor import EARLIEST, LOST, Cursor
from ..protocol.entry import Entry
from .channel_cache import NOW, ChannelCache, Coverage
from .position import Gap, Opening, Reset, Snapshot, StartPoint, reset_of

#: Bytes of missed events handed over in one piece: what a slow client may hold in memory while it catches up.
MAX_PIECE = 65_536


class MissedChunk:
    """Missed entries that go out together."""

    __slots__ = ("at", "entries", "frames", "limited", "whole")

    def __init__(self, entries: list[Entry], at: int | None, whole: bool) -> None:
        self.entries = entries
        self.at = at  # everything up to here is served with it; None: nothing was missed
        self.whole = whole  # whether it is all that was missed
        self.limited = any(entry.exclude for entry in entries)  # some are not for everybody
        self.frames: dict[object, bytes] = {}  # of one that is for everybody, by how they are put together


class ChunkCache:
    """The piece that was taken last: when thousands come back at once, most of them missed the same."""

    __slots__ = ("key", "piece")

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.piece = MissedChunk([], None, True)


class ShardRecovery:
    """Serves what one client missed, at its own pace.

    :param waiter: is set when something this stream waits for is here; without one it makes its own.
    """

    def __init__(
        self, channels: tuple[str, ...], start: StartPoint, waiter: threading.Event | None = None
    ) -> None:
        self.channels = channels  # BROADCAST included
        self._start = start
        self._asked = cursor.parse(start.cursor) if start.cursor else None
        self._earliest = start.cursor == EARLIEST or (not start.cursor and start.newest is not None)
        self._at: int | None = None  # everything up to here was served
        self._settled: threading.Event | None = None
        self._served: Snapshot | None = None  # everything up to this moment was served
        self._waiter = waiter  # made only for a stream that must wait
        self._epoch = ""
        self._from: dict[str, int] = {}  # channels that begin later than `_at`
        self.gaps: list[Gap] = []  # for whoever keeps account of what the stream has had, who takes them out

    def is_served(self, snapshot: Snapshot) -> bool:
        """Whether nothing can be missing, because nothing has come since everything was served."""
        return snapshot == self._served and self._at is not None and self._at <= snapshot.position

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

    def is_ahead(self, snapshot: Snapshot) -> bool:
        """Whether the client may know more than this worker: then the worker must look again."""
        if self._at is not None:
            return self._at > snapshot.position
        known = self._asked
        return known is not None and (not snapshot.leases(known) or known.id > snapshot.position)

    def must_settle(self, snapshot: Snapshot) -> bool:
        """Whether the worker must first reach a moment after the client's arrival.

        Before the stream has begun, once is enough: a client still ahead then has a cursor nobody gave it.
        """
        if not self.is_ahead(snapshot) or (self._at is not None and not self._goes_on(snapshot)):
            return False
        return self._at is not None or self._settled is None or not self._settled.is_set()

    def settling(self) -> threading.Event | None:
        """What is to be set when that moment is reached; None when it is under way already."""
        if self._settled is not None and not self._settled.is_set():
            return None
        self._settled = threading.Event()
        return self._settled

    def needs(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot | None) -> dict[str, int]:
        """Channels whose replicas do not reach back far enough, each with the position needed."""
        if self._at is not None:
            same = snapshot is not None and self._goes_on(snapshot)
            wanted = {name: self._after(name) if same else NOW for name in self.channels}
        elif self._earliest:
            return {name: 0 for name in self.channels if not caches[name].whole}
        elif self._asked and not (snapshot and self.is_ahead(snapshot)):
            wanted = dict.fromkeys(self.channels, self._asked.id)
        else:
            wanted = dict.fromkeys(self.channels, NOW)
        return {name: at for name, at in wanted.items() if caches[name].reach(at) is Coverage.ABSENT}

    def _goes_on(self, snapshot: Snapshot) -> bool:
        """Whether the position of a stream that has begun counts at `moment`."""
        assert self._at is not None
        furthest = max((self._at, *self._from.values()))
        return snapshot.epoch == self._epoch or snapshot.leases(Cursor(self._epoch, furthest))

    def _after(self, name: str) -> int:
        assert self._at is not None
        return max(self._at, self._from.get(name, 0))

    def begin(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> tuple[Opening, Reset | None]:
        """Fixes the position to start from, once nothing is needed and the worker is not behind."""
        self._epoch = snapshot.epoch
        if self._earliest:
            return self._begin_with_kept(caches, snapshot), None
        if not self._start.cursor:
            self._at = snapshot.position
            return Opening(str(Cursor(snapshot.epoch, self._at)), False), None
        if self._asked is None or self.is_ahead(snapshot):
            reason = "epoch" if self._asked and self._asked.epoch != snapshot.epoch else "cursor"
            return Opening(LOST, False), self._lose(list(self.channels), reason, snapshot)
        self._at = self._asked.id
        reset = self.reset(caches, snapshot)
        everything = reset is not None and reset.cursor is not None
        return Opening(LOST if everything else str(self._asked), reset is None), reset

    def _begin_with_kept(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> Opening:
        self._at = 0
        self._from = {name: caches[name].floor for name in self.channels}
        kept = [entry for entry in self.missed(caches, snapshot) if not entry.is_expired(snapshot.seen)]
        newest = self._start.newest
        if newest == 0:
            self._at, self._from = snapshot.position, {}
        elif self._start.cursor or newest is None or len(kept) <= newest:
            self.gaps += [Gap(name, 0, floor) for name, floor in self._from.items()]
            return Opening(EARLIEST, False)
        else:
            self._at = kept[-newest - 1].id
        return Opening(str(Cursor(snapshot.epoch, self._at)), False)

    def skip(self, until: int) -> None:
        """Leaves out what was missed up to the position `until`."""
        self._at = max(self._at or 0, until)

    def reset(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> Reset | None:
        """Gives up on channels whose missed events are gone; they go on from here."""
        goes_on = self._goes_on(snapshot)
        self._epoch = snapshot.epoch
        if not goes_on:
            self._from = {}
            return self._lose(list(self.channels), "epoch", snapshot)
        lost = [name for name in self.channels if caches[name].reach(self._after(name)) is Coverage.LOST]
        if not lost:
            return None
        self.gaps += [Gap(name, self._after(name), snapshot.position) for name in lost]
        return self._lose(lost, "history", snapshot)

    def _lose(self, lost: list[str], reason: str, snapshot: Snapshot) -> Reset:
        if len(lost) == len(self.channels):
            self._at, self._from = snapshot.position, {}
            return reset_of(lost, self.channels, reason, Cursor(snapshot.epoch, snapshot.position))
        for name in lost:
            self._from[name] = snapshot.position
        return reset_of(lost, self.channels, reason, None)

    def take(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> list[Entry]:
        """The next missed entries in order, a bounded piece; nothing when the stream may join."""
        return self.take_piece(caches, snapshot, ChunkCache()).entries

    def take_piece(
        self, caches: Mapping[str, ChannelCache], snapshot: Snapshot, chunk_cache: ChunkCache
    ) -> MissedChunk:
        """The same as it is handed on to others that need it.

        :param shelf: has the piece that was taken last, which may be the same.
        """
        key = self.channels, self._at, self._from, snapshot
        if chunk_cache.key == key:
            piece = chunk_cache.piece
        else:
            piece = self._piece(caches, snapshot)
            if self._reaches(caches):  # else more of it may come without another moment
                chunk_cache.key, chunk_cache.piece = (
                    (self.channels, self._at, dict(self._from), snapshot),
                    piece,
                )
        if piece.at is not None:
            self._at = piece.at
        if piece.whole and self._reaches(caches):
            self._served = snapshot
        return piece

    def _piece(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> MissedChunk:
        missed = self.missed(caches, snapshot)
        entries: list[Entry] = []
        size = 0
        for entry in missed:
            if entry.is_expired(snapshot.seen):
                continue
            if entries and size + len(entry.frame) > MAX_PIECE:
                break
            size += len(entry.frame)
            entries.append(entry)
        at = (entries or missed)[-1].id if missed else None
        return MissedChunk(entries, at, not missed or at == missed[-1].id)

    def _reaches(self, caches: Mapping[str, ChannelCache]) -> bool:
        """Whether the replicas have everything after the stream's position: one that was read while the
        worker's position stood still may begin above it."""
        return all(caches[name].reach(self._after(name)) is Coverage.READY for name in self.channels)

    def missed(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> list[Entry]:
        """Entries of all channels by id; one that is in several of them once."""
        found = {}
        for name in self.channels:
            for entry in caches[name].since(self._after(name), snapshot.seen):
                found[entry.id] = entry
        return [found[id] for id in sorted(found)]
