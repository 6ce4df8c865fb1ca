"""One channel's recent events, as this worker knows them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from enum import Enum
from operator import attrgetter

from ..brokers.base import ChannelHistory
from ..protocol.cursor import MAX_ID
from ..protocol.entry import Entry

#: Asks for a channel's head only, no entries.
NOW = MAX_ID
#: The floor of a replica that nothing was read for yet: no position reaches it.
UNREAD = MAX_ID + 1

_id = attrgetter("id")


class Coverage(Enum):
    """Whether a replica can serve everything after some position."""

    READY = "it is all here"
    ABSENT = "the broker must be asked"
    LOST = "the broker has it no longer"


class ChannelCache:
    """Entries in the order of their ids, complete after `floor`."""

    __slots__ = ("entries", "floor", "gone", "head", "live", "size", "tail", "users")

    def __init__(self, keep: int) -> None:
        self.entries: list[Entry] = []
        self.size = 0  # bytes of all entries
        self.floor = UNREAD  # every event after this position is in `entries`
        self.gone = 0  # the broker keeps nothing at or before this position
        self.head = 0  # id of the newest event known
        self.live = False  # new events may be appended; else they wait in `tail`
        self.tail: deque[Entry] = deque(maxlen=keep)
        self.users = 0  # streams that have the channel, or are on their way to it

    def reach(self, after: int) -> Coverage:
        """Whether everything after the position `after` can be served from here."""
        if after >= self.floor:
            return Coverage.READY
        return Coverage.LOST if after < self.gone else Coverage.ABSENT

    @property
    def whole(self) -> bool:
        """Whether all that the broker keeps is here."""
        return self.floor <= self.gone

    def since(self, after: int, until: int) -> list[Entry]:
        """Entries with ids in (after, until]."""
        entries = self.entries
        if not entries or entries[-1].id <= after:
            return []
        return entries[bisect_right(entries, after, key=_id) : bisect_right(entries, until, key=_id)]

    def append(self, entry: Entry) -> None:
        """Adds the channel's next event."""
        self.entries.append(entry)
        self.size += len(entry.frame)
        self.head = entry.id

    def misses(self, entry: Entry) -> bool:
        """Whether an event before `entry` was never seen: a hole in the chain of `prev`."""
        return entry.prev > self.head

    def overlooked(self, past: ChannelHistory, known: int) -> bool:
        """Whether the broker has an event up to the position `known`, which the worker has passed, that never
        came here."""
        before = past.entries[0].prev if past.entries else past.head
        newest = max([before, *[entry.id for entry in past.entries if entry.id <= known]])
        return self.floor != UNREAD and self.head < newest <= known

    def adopt(self, past: ChannelHistory, *, asked: int, last: int, known: int) -> int:
        """Takes over what the broker had after `asked`, read at the position `last`, before going live.

        :param known: up to here every event is in the replica, or was before it was trimmed.
        :returns: the position after which the channel is complete now; above `known` events were lost.
        """
        start = min(past.start, last)
        if self.floor == UNREAD or start > known:
            self._note_gone(start, asked)
            self._replace(past.entries, start)
        else:
            self.reach_back(past, asked=asked, last=last)
            for entry in past.entries:
                if entry.id > self.head:
                    self.append(entry)
        self.head = max(self.head, past.head)
        return start

    def reach_back(self, past: ChannelHistory, *, asked: int, last: int) -> None:
        """Takes over the older part of what the broker had. The newer part comes, or came, over the link."""
        start = min(past.start, last)
        self._note_gone(start, asked)
        if start < self.floor <= last:
            older = [entry for entry in past.entries if entry.id <= self.floor]
            self.entries[:0] = older
            self.size += sum(len(entry.frame) for entry in older)
            self.floor = start

    def _note_gone(self, start: int, asked: int) -> None:
        if start > asked:
            self.gone = max(self.gone, start)

    def _replace(self, entries: list[Entry], start: int) -> None:
        self.entries = list(entries)
        self.size = sum(len(entry.frame) for entry in entries)
        self.floor = start
        if entries:
            self.head = entries[-1].id

    def restart(self) -> None:
        """Forgets everything: another epoch began, whose history is still to be read."""
        self._replace([], UNREAD)
        self.gone = self.head = 0

    def rewind(self, position: int) -> None:
        """Forgets what came after `position`: a failover may have undone it."""
        if self.floor > position:
            self.restart()
            return
        head = min(self.head, position)
        self._replace(self.since(self.floor, position), self.floor)
        self.head, self.gone = head, 0

    def trim(self, max_entries: int, max_bytes: int) -> None:
        """Drops the oldest entries until both bounds hold; they stay with the broker."""
        excess = max(0, len(self.entries) - max_entries)
        size = self.size - sum(len(entry.frame) for entry in self.entries[:excess])
        while size > max_bytes:
            size -= len(self.entries[excess].frame)
            excess += 1
        if excess:
            self.floor = self.entries[excess - 1].id
            del self.entries[:excess]
            self.size = size
