"""Was anything lost, doubled or out of order? Judged from a ledger of publications and logs of clients."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from flask_sse_push.cursor import Cursor, parse


@dataclass
class Ledger:
    """What was published: the id that `publish` returned, its channels, and a serial number."""

    events: list[tuple[int, frozenset[str], int]] = field(default_factory=list)

    def note(self, cursor: str, channels: Iterable[str], serial: int) -> None:
        found = parse(cursor)
        assert found is not None, cursor
        self.events.append((found.id, frozenset(channels), serial))

    def due(self, channels: frozenset[str], after: int, until: int) -> list[int]:
        """Serials of the events of `channels` with ids in (after, until], in order."""
        events = sorted(self.events)
        ids = [id for id, _, _ in events]
        part = events[bisect_right(ids, after) : bisect_right(ids, until)]
        return [serial for _, names, serial in part if names & channels]

    def newest(self, channels: frozenset[str]) -> int:
        """The id of the last event of `channels`; 0 when there is none."""
        return max((id for id, names, _ in self.events if names & channels), default=0)


@dataclass
class Segment:
    """One connection of a client: from the cursor it came with to the last one it got."""

    channels: frozenset[str]
    came_with: str | None
    opened_at: str | None = None
    cursor: str | None = None
    serials: list[int] = field(default_factory=list)
    resets: list[list[str]] = field(default_factory=list)
    resumed: bool | None = None


@dataclass
class Verdict:
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    resets: int = 0
    delivered: int = 0
    resumed: int = 0

    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.disordered)


def position(cursor: str | None) -> int:
    """The id in a cursor."""
    found = parse(cursor or "")
    assert isinstance(found, Cursor), cursor
    return found.id


def judge(ledger: Ledger, logs: Iterable[Iterable[Segment]]) -> Verdict:
    """Compares each connection with what was due between its first and its last cursor.

    A connection that was told `sse.reset` is judged from the cursor it got after that.
    """
    verdict = Verdict()
    for segments in logs:
        seen: set[int] = set()
        for segment in segments:
            if segment.opened_at is None or segment.cursor is None:
                continue  # cut before anything was received: the next connection has the same cursor
            verdict.resets += len(segment.resets)
            verdict.resumed += bool(segment.resumed)
            start = position(segment.opened_at)
            due = ledger.due(segment.channels, start, position(segment.cursor))
            verdict.delivered += len(segment.serials)
            verdict.lost += len(set(due) - set(segment.serials))
            verdict.doubled += len(segment.serials) - len(set(segment.serials))
            verdict.doubled += len(set(segment.serials) & seen)
            kept = set(due)
            verdict.disordered += [s for s in segment.serials if s in kept] != [
                s for s in due if s in set(segment.serials)
            ]
            verdict.disordered += len(set(segment.serials) - kept)
            seen |= set(segment.serials)
    return verdict
