"""Gives a stream the events that it missed on several shards, with one cursor over all shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..protocol import shard_cursor
from ..protocol.cursor import EARLIEST, LOST, Cursor, parse
from ..protocol.entry import Entry
from ..protocol.shard_cursor import ANY_CHANNELS, Position
from .chunk import MissedChunk
from .joining import Joining
from .page import Waiter
from .placement import Placement
from .position import Opening, Reset, StartPoint, reset_of
from .recovery_driver import NOTHING_MISSED, Recovery, ShardRecovery, Step


class ShardedRecovery(Recovery):
    """Gives a stream the events that it missed on several shards: uses a `ShardRecovery` for each shard."""

    def __init__(self, placement: Placement, start: StartPoint, joining: Joining | None = None) -> None:
        self.gaps = []  # stays empty: gaps are not recorded for streams on several shards
        self._placement = placement
        self._waiter = Waiter()
        self._newest = start.newest if not start.cursor else None
        self._given = start.cursor
        self._recoveries = {
            number: ShardRecovery(
                placement.history_caches[number], placement.parts[number], start_point, self._waiter
            )
            for number, start_point in start_points(placement, start).items()
        }
        for recovery in self._recoveries.values():
            recovery.joining = joining

    def next(self) -> Step | None:
        if self.is_complete():
            return NOTHING_MISSED
        # A list and no generator: `must_wait` queues requests, so it must run for every shard.
        waits = [recovery.must_wait() for recovery in self._recoveries.values()]
        if any(waits):
            return None
        opening, resets = self._begin_or_reset()
        moved = opening is not None or any(reset.cursor for reset in resets)
        chunk = MissedChunk(self._next_entries(), None, True)
        return Step(opening, resets, chunk, 0 if moved else None, self.is_complete())

    # -- start of the stream, and lost events -----------------------------------------------------------

    def _begin_or_reset(self) -> tuple[Opening | None, list[Reset]]:
        begins = all(recovery.position is None for recovery in self._recoveries.values())
        cursors = {} if begins else self._cursors()
        openings: dict[int, Opening] = {}
        resets: dict[int, Reset] = {}
        for number, recovery in self._recoveries.items():
            opening, lost = recovery.begin_or_reset()
            openings.update({number: opening} if opening else {})
            resets.update((number, reset) for reset in lost)
        if self._newest and begins:
            self._keep_newest(self._newest)
        if begins and self._newest is None:
            cursors = {number: self._opening_part(number, opening) for number, opening in openings.items()}
        elif begins:
            cursors = self._cursors()
        opening = self._opening(openings, cursors) if begins else None
        return opening, list(self._joined(resets, cursors))

    def _opening(self, openings: Mapping[int, Opening], cursors: Mapping[int, Cursor]) -> Opening:
        resumed = all(opening.resumed for opening in openings.values())
        text = self._given if resumed and self._given else str(self._placement.shard_cursor(cursors))
        return Opening(text, resumed)

    def _opening_part(self, number: int, opening: Opening) -> Cursor:
        known = parse(opening.cursor) if opening.cursor not in (LOST, EARLIEST) else None
        return shard_cursor.part(number, opening.cursor, known or self._recoveries[number].cursor)

    def _joined(self, resets: Mapping[int, Reset], cursors: dict[int, Cursor]) -> Iterator[Reset]:
        """Yields one reset for each reason, made of the resets of all shards.

        :param cursors: the stream's cursor on each shard. If a shard lost events of all its channels, this
            method replaces the cursor of the shard.
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
        """Skips missed events until `count` are left on all shards together.

        Before the call, each shard has up to `count` missed events.
        """
        kept = []
        for number, recovery in self._recoveries.items():
            history_cache = recovery.history_cache
            if recovery.newest_ids:
                kept += [(id, number) for id in recovery.newest_ids]
                continue
            for entry in recovery.entries(history_cache.caches, history_cache.announced):
                if self._placement.delivers(entry, number):
                    kept.append((entry.id, number))
        for id, number in sorted(kept)[:-count]:
            self._recoveries[number].skip(id)

    # -- missed entries ---------------------------------------------------------------------------------

    def _next_entries(self) -> list[Entry]:
        """Returns the next missed entries of one shard, with cursors over all shards."""
        for number, recovery in self._recoveries.items():
            position = recovery.position
            while entries := recovery.next_chunk().entries:
                taken = [entry for entry in entries if self._placement.delivers(entry, number)]
                if taken:
                    cursors = self._cursors()
                    return [self._placed(entry, {**cursors, number: entry.position}) for entry in taken]
                assert recovery.position != position, "a chunk of missed events did not move the position"
                position = recovery.position
                if recovery.page_has_ended:  # the events after the page must be read first
                    break
        return []

    def _placed(self, entry: Entry, cursors: Mapping[int, Cursor]) -> Entry:
        return entry.placed(str(self._placement.shard_cursor(cursors)))

    def _cursors(self) -> dict[int, Cursor]:
        """Returns the stream's cursor on each shard.

        The cursor is `earliest` if the client wants every kept event and got no event of the shard yet.
        """
        cursors = {}
        for number, recovery in self._recoveries.items():
            text = EARLIEST if recovery.is_before_all_kept else ""
            cursors[number] = shard_cursor.part(number, text, recovery.cursor)
        return cursors

    # -- completeness -----------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        return all(recovery.is_complete() for recovery in self._recoveries.values())

    def is_settled(self) -> bool:
        # A list and no generator: `is_settled` queues a probe, so it must run for every shard.
        settled = [recovery.is_settled() for recovery in self._recoveries.values()]
        return all(settled)

    def has_more(self) -> bool:
        return any(recovery.is_paging for recovery in self._recoveries.values())

    @property
    def waits_for_room(self) -> bool:
        return any(recovery.waits_for_room for recovery in self._recoveries.values())

    @property
    def positions(self) -> Position:
        return {number: recovery.position or 0 for number, recovery in self._recoveries.items()}


def start_points(placement: Placement, start: StartPoint) -> dict[int, StartPoint]:
    """Returns where a stream starts on each of its shards, computed from the client's start point.

    A cursor over several shards is valid only for the channels for which it was made; see `shard_cursor`.
    """
    given = shard_cursor.parse(start.cursor) if start.cursor else None
    if given is None and (not placement.is_sharded or not start.cursor or start.cursor == EARLIEST):
        return dict.fromkeys(placement.parts, start)
    valid = given is not None and given.channel_hash in (placement.channel_hash, ANY_CHANNELS)
    texts = given.texts() if given is not None and valid else {}
    if not texts.keys() >= placement.parts.keys():
        texts = dict.fromkeys(placement.parts, LOST)
    return {number: start._replace(cursor=texts[number]) for number in placement.parts}
