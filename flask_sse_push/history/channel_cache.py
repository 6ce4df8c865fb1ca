"""A worker's copy of one channel's recent entries."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from enum import Enum
from operator import attrgetter

from ..brokers.base import ChannelHistory
from ..protocol.cursor import MAX_ID
from ..protocol.entry import Entry

#: The position to read a channel from when only its head is wanted, and no entries.
NOW = MAX_ID
#: The floor of a cache whose channel was not read yet. It is above every position.
UNREAD = MAX_ID + 1

_id = attrgetter("id")


class Coverage(Enum):
    """Whether a channel cache has every entry after some position."""

    READY = "the cache has them all"
    ABSENT = "the broker must be asked"
    LOST = "the broker no longer has them"


class ChannelCache:
    """Entries in the order of their ids: every event of the channel after `floor`.

    :param keep: entries that may wait in `tail`.
    """

    __slots__ = ("entries", "floor", "gone", "head", "live", "size", "tail", "users")

    def __init__(self, keep: int) -> None:
        self.entries: list[Entry] = []
        self.size = 0  # bytes of all entries
        self.floor = UNREAD  # every event after this position is in `entries`
        self.gone = 0  # the broker has no entries at or before this position
        self.head = 0  # id of the newest event known
        self.live = False  # whether new events may be appended; otherwise they wait in `tail`
        self.tail: deque[Entry] = deque(maxlen=keep)
        self.users = 0  # streams that have the channel or are about to join it

    def coverage(self, after: int) -> Coverage:
        """Whether the cache has every event after the position `after`."""
        if after >= self.floor:
            return Coverage.READY
        return Coverage.LOST if after < self.gone else Coverage.ABSENT

    @property
    def has_all_kept(self) -> bool:
        """Whether the cache has every entry that the broker keeps."""
        return self.floor <= self.gone

    def between(self, after: int, until: int) -> list[Entry]:
        """Entries with ids above `after`, up to and including `until`."""
        entries = self.entries
        if not entries or entries[-1].id <= after:
            return []
        return entries[bisect_right(entries, after, key=_id) : bisect_right(entries, until, key=_id)]

    def append(self, entry: Entry) -> None:
        """Adds the channel's next event."""
        self.entries.append(entry)
        self.size += len(entry.frame)
        self.head = entry.id

    def misses_one_before(self, entry: Entry) -> bool:
        """Whether an event before `entry` never arrived: its `prev` names an event unknown here."""
        return entry.prev > self.head

    def lacks_event(self, history: ChannelHistory, position: int) -> bool:
        """Whether the broker has an event up to `position`, which the worker has passed, that never arrived.

        :param position: the worker's position.
        """
        before = history.entries[0].prev if history.entries else history.head
        newest = max([before, *[entry.id for entry in history.entries if entry.id <= position]])
        return self.floor != UNREAD and self.head < newest <= position

    def adopt(self, history: ChannelHistory, *, after: int, last: int, known: int) -> int:
        """Adds what the broker had after the position `after`. Called before the cache goes live.

        :param last: the position at which the broker was read.
        :param known: every event up to here is in the cache, or was before the cache was trimmed.
        :returns: the position after which the cache is complete now. If it is above `known`, the events
            between the two are lost.
        """
        start = min(history.start, last)
        if self.floor == UNREAD or start > known:
            self._note_gone(start, after)
            self._replace(history.entries, start)
        else:
            self.add_older(history, after=after, last=last)
            for entry in history.entries:
                if entry.id > self.head:
                    self.append(entry)
        self.head = max(self.head, history.head)
        return start

    def add_older(self, history: ChannelHistory, *, after: int, last: int) -> None:
        """Adds the entries that are older than the cache's own. The newer ones arrive over the link."""
        start = min(history.start, last)
        self._note_gone(start, after)
        if start < self.floor <= last:
            older = [entry for entry in history.entries if entry.id <= self.floor]
            self.entries[:0] = older
            self.size += sum(len(entry.frame) for entry in older)
            self.floor = start

    def _note_gone(self, start: int, after: int) -> None:
        if start > after:
            self.gone = max(self.gone, start)

    def _replace(self, entries: list[Entry], start: int) -> None:
        self.entries = list(entries)
        self.size = sum(len(entry.frame) for entry in entries)
        self.floor = start
        if entries:
            self.head = entries[-1].id

    def clear(self) -> None:
        """Drops everything: a new epoch began, and its history is not read yet."""
        self._replace([], UNREAD)
        self.gone = self.head = 0

    def rewind(self, position: int) -> None:
        """Drops the entries after `position`: a failover may have undone them."""
        if self.floor > position:
            self.clear()
            return
        head = min(self.head, position)
        self._replace(self.between(self.floor, position), self.floor)
        self.head, self.gone = head, 0

    def trim(self, max_entries: int, max_bytes: int) -> None:
        """Drops the oldest entries until the rest is within both bounds. The broker still has them."""
        excess = max(0, len(self.entries) - max_entries)
        size = self.size - sum(len(entry.frame) for entry in self.entries[:excess])
        while size > max_bytes:
            size -= len(self.entries[excess].frame)
            excess += 1
        if excess:
            self.floor = self.entries[excess - 1].id
            del self.entries[:excess]
            self.size = size
