"""Recovery of a stream whose channels lie on several shards: one recovery for each shard, and one cursor."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from ..protocol import shard_cursor
from ..protocol.cursor import EARLIEST, LOST, Cursor, parse
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ANY_CHANNELS, Position
from .missed import MissedChunk
from .placement import Placement
from .position import Opening, Reset, Snapshot, StartPoint, reset_of
from .recovery import NOTHING_MISSED, Recovery, ShardRecovery, Step


class ShardedRecovery(Recovery):
    """The recovery of a stream on several shards."""

    def __init__(self, placement: Placement, start: StartPoint) -> None:
        self.gaps = []  # nobody can keep a record of them: positions of two shards have no order
        self._placement = placement
        self._waiter = threading.Event()
        self._newest = start.newest if not start.cursor else None
        self._given = start.cursor
        texts = self._texts(start.cursor)
        self._recoveries = {
            number: ShardRecovery(
                placement.history_caches[number], names, StartPoint(texts[number], start.newest), self._waiter
            )
            for number, names in placement.parts.items()
        }

    def _texts(self, given: str | None) -> dict[int, str | None]:
        """The cursor for each shard. A cursor of other channels is as good as none: see `shard_cursor`."""
        if not given or given == EARLIEST:
            return dict.fromkeys(self._placement.parts, given)
        cursor = shard_cursor.parse(given)
        valid = cursor is not None and cursor.channel_hash in (self._placement.channel_hash, ANY_CHANNELS)
        texts = cursor.texts() if cursor is not None and valid else {}
        if not texts.keys() >= self._placement.parts.keys():
            return dict.fromkeys(self._placement.parts, LOST)
        return {number: texts[number] for number in self._placement.parts}

    def next(self) -> Step | None:
        if self.is_complete():
            return NOTHING_MISSED
        recoveries = self._recoveries.values()
        waits = [recovery.must_wait() for recovery in recoveries]  # all shards are asked at once
        if any(waits):
            return None
        begins = all(recovery.position is None for recovery in recoveries)
        opening, resets = self._begin() if begins else (None, self._reset())
        moved = begins or any(reset.cursor for reset in resets)
        chunk = MissedChunk(self._next_entries(), None, True)
        return Step(opening, resets, chunk, 0 if moved else None, self.is_complete())

    # -- the beginning, and lost events -----------------------------------------------------------------

    def _begin(self) -> tuple[Opening, list[Reset]]:
        openings: dict[int, Opening] = {}
        resets: dict[int, Reset] = {}
        for number, recovery, snapshot in self._each():
            opening, lost = recovery.begin_or_reset(snapshot)
            assert opening is not None
            openings[number] = opening
            resets.update((number, reset) for reset in lost)
        if self._newest:
            self._keep_newest(self._newest)
        if self._newest is None:
            cursors = {number: self._opening_part(number, opening) for number, opening in openings.items()}
        else:
            cursors = self._cursors()
        resumed = all(opening.resumed for opening in openings.values())
        text = self._given if resumed and self._given else str(self._placement.shard_cursor(cursors))
        return Opening(text, resumed), list(self._joined(resets, cursors))

    def _opening_part(self, number: int, opening: Opening) -> Cursor:
        known = parse(opening.cursor) if opening.cursor not in (LOST, EARLIEST) else None
        return shard_cursor.part(number, opening.cursor, known or self._recoveries[number].cursor)

    def _reset(self) -> list[Reset]:
        cursors = self._cursors()
        resets = {
            number: reset
            for number, recovery, snapshot in self._each()
            for reset in recovery.begin_or_reset(snapshot)[1]
        }
        return list(self._joined(resets, cursors))

    def _joined(self, resets: Mapping[int, Reset], cursors: dict[int, Cursor]) -> Iterator[Reset]:
        """One reset for each reason, instead of one for each shard.

        :param cursors: the stream's cursor on each shard. A reset of all channels moves it on its shards.
        """
        channels = [name for names in self._placement.parts.values() for name in names]
        for reason, moves in dict.fromkeys((reset.reason, bool(reset.cursor)) for reset in resets.values()):
            lost: list[str] = []
            for number, reset in resets.items():
                if (reset.reason, bool(reset.cursor)) == (reason, moves):
                    lost += self._placement.parts[number] if moves else reset.channels
                    if moves:
                        cursors[number] = self._recoveries[number].cursor
            yield reset_of(lost, channels, reason, self._placement.shard_cursor(cursors) if moves else None)

    def _keep_newest(self, count: int) -> None:
        """Skips all but the newest `count` events of all shards; each shard has kept as many of its own."""
        kept = [
            (entry.id, number)
            for number, recovery, snapshot in self._each()
            for entry in recovery.entries(recovery.history_cache.caches, snapshot)
            if self._placement.delivers(entry, number)
        ]
        for id, number in sorted(kept)[:-count]:
            self._recoveries[number].skip(id)

    # -- missed entries ---------------------------------------------------------------------------------

    def _next_entries(self) -> list[Entry]:
        """The next missed entries, all of one shard, with cursors over all shards."""
        for number, recovery, snapshot in self._each():
            history_cache = recovery.history_cache
            while True:
                position = recovery.position
                chunk = recovery.take(history_cache.caches, snapshot, history_cache.chunk_cache)
                if not chunk.entries:
                    break
                taken = [entry for entry in chunk.entries if self._placement.delivers(entry, number)]
                if taken:
                    cursors = self._cursors()
                    return [self._placed(entry, {**cursors, number: entry.position}) for entry in taken]
                assert recovery.position != position, "a chunk without end"
        return []

    def _placed(self, entry: Entry, cursors: Mapping[int, Cursor]) -> Entry:
        return entry.placed(str(self._placement.shard_cursor(cursors)))

    def _cursors(self) -> dict[int, Cursor]:
        """Where the stream is on each shard; `earliest` where it is to get all that is kept, and got none."""
        cursors = {}
        for number, recovery in self._recoveries.items():
            text = EARLIEST if recovery.is_before_all_kept else ""
            cursors[number] = shard_cursor.part(number, text, recovery.cursor)
        return cursors

    def _each(self) -> Iterator[tuple[int, ShardRecovery, Snapshot]]:
        for number, recovery in self._recoveries.items():
            snapshot = recovery.history_cache.snapshot
            assert snapshot is not None, "must_wait has seen to that"
            yield number, recovery, snapshot

    # -- the end ----------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        return all(recovery.is_complete() for recovery in self._recoveries.values())

    def is_settled(self) -> bool:
        settled = [recovery.is_settled() for recovery in self._recoveries.values()]  # asks all shards at once
        return all(settled)

    @property
    def positions(self) -> Position:
        return {number: recovery.position or 0 for number, recovery in self._recoveries.items()}


def recovery_for(placement: Placement, start: StartPoint) -> Recovery:
    """The recovery of a stream on the shards of its channels."""
    if placement.is_sharded:
        return ShardedRecovery(placement, start)
    return ShardRecovery(placement.history_cache, placement.channels, start_on_one_shard(placement, start))


def start_on_one_shard(placement: Placement, start: StartPoint) -> StartPoint:
    """Where a stream on one shard starts. A cursor over several shards is valid if it is for any channels."""
    given = shard_cursor.parse(start.cursor) if start.cursor else None
    if given is None:
        return start
    texts = given.texts() if given.channel_hash == ANY_CHANNELS else {}
    return StartPoint(texts.get(placement.history_cache.number, LOST))
