"""A channel cache: a worker's copy of the recent entries of one channel."""

from __future__ import annotations

from collections import deque
from enum import Enum

from ..brokers.base import ENTRY_COST, UNBOUNDED, ChannelHistory
from ..protocol.cursor import MAX_ID
from ..protocol.entry import Entry
from .page import between

#: The position to pass to a history call that needs no entries, only the id of the channel's newest event.
NOW = MAX_ID
#: The `floor` of a channel cache before the channel's history was read. It is higher than every position.
UNREAD = MAX_ID + 1
#: How many entries a channel cache may have above its limit. So one trim removes many entries at once.
SLACK = 100
#: How long, in seconds, a cache keeps the older entries that it got for one stream, for further streams.
KEPT_FILLED = 30


class Coverage(Enum):
    """Where the entries of a channel after some position can be found."""

    READY = "all entries are in the channel cache"
    ABSENT = "some entries must be read from the broker"
    LOST = "some entries are gone from the broker"


class ChannelCache:
    """The recent entries of one channel in the order of their ids: every entry after the position `floor`.

    :param keep: how many entries the broker keeps, as far as this worker knows: publishers decide. The cache
        has at most `SLACK` more, and so does `tail`, where the oldest are dropped first.
    :param keep_bytes: at most how many bytes the frames have.
    :param ttl: for how many seconds after the newest event the broker keeps the entries, as far as this
        worker knows.
    """

    __slots__ = (
        "entries",
        "expires",
        "filled",
        "floor",
        "gone",
        "head",
        "is_too_small",
        "keep",
        "keep_bytes",
        "live",
        "size",
        "tail",
        "ttl",
        "users",
    )

    def __init__(self, keep: int, keep_bytes: int = UNBOUNDED, ttl: float = 1e8) -> None:
        self.keep = keep
        self.keep_bytes = keep_bytes
        self.ttl = ttl * 1e6  # in microseconds, as the ids
        self.entries: list[Entry] = []
        self.filled = (
            0  # for how many calls of `ChannelCaches.tend` older entries are kept for further streams
        )
        self.expires = 0  # when the last of the entries with a time to live expires; see `Entry.expires`
        self.size = 0  # how many bytes the frames of `entries` have
        self.floor = UNREAD  # `entries` has every event of the channel after this position
        self.gone = 0  # the broker has no entries of the channel at or before this position
        self.head = 0  # id of the channel's newest known event
        self.is_too_small = False  # whether the broker may have more entries than one history call reads
        self.live = False  # whether new events go to `entries`; if False, they wait in `tail`
        self.tail: deque[Entry] = deque(maxlen=keep + SLACK)
        self.users = 0  # how many streams have the channel or are joining it

    def coverage(self, after: int) -> Coverage:
        """Returns where the channel's events after the position `after` can be found."""
        if after >= self.floor:
            return Coverage.READY
        return Coverage.LOST if after < self.gone else Coverage.ABSENT

    @property
    def has_all_kept(self) -> bool:
        """Whether the cache has every entry that the broker keeps for the channel."""
        return self.floor <= self.gone

    def between(self, after: int, until: int) -> list[Entry]:
        """Returns the entries with ids above `after`, up to and including `until`."""
        return between(self.entries, after, until)

    def append(self, entry: Entry) -> None:
        """Adds the entry of the channel's next event."""
        self.entries.append(entry)
        self.size += len(entry.frame)
        if entry.expires > self.expires:
            self.expires = entry.expires
        self.head = entry.id

    def misses_one_before(self, entry: Entry) -> bool:
        """Whether the previous event of the channel never arrived. Its id is the `prev` of `entry`."""
        return entry.prev > self.head

    def go_live(self, epoch: str, last: int) -> Entry | None:
        """Adds the entries of `tail` that are newer than the position `last`. Then the cache is live.

        :returns: None; or an entry before which an event is missing, and which was not added.
        """
        self.live = True
        tail = list(self.tail)
        self.tail.clear()
        for entry in tail:
            if entry.epoch == epoch and entry.id > max(last, self.head):
                if self.misses_one_before(entry):
                    return entry
                self.append(entry)
        return None

    def lacks_event(self, history: ChannelHistory, position: int) -> bool:
        """Whether the broker has an event at or before `position` that never arrived at this worker.

        :param position: the position up to which the worker has dispatched events.
        """
        before = history.entries[0].prev if history.entries else history.head
        newest = max([before, *[entry.id for entry in history.entries if entry.id <= position]])
        return self.floor != UNREAD and self.head < newest <= position

    def adopt(self, history: ChannelHistory, *, after: int, last: int, known: int) -> int:
        """Adds the entries that the broker had after the position `after`. Called before `live` becomes True.

        :param last: the position that the broker had reached when it read the history.
        :param known: a position; the cache has, or had before a `trim`, every event up to this position.
        :returns: the position after which the cache is complete now. If this position is above `known`, the
            events between the two positions are lost.
        """
        start = min(history.start, last)
        if self.floor == UNREAD or start > known:
            self._note_read(history, start, after)
            self._replace(history.entries, start)
        else:
            self.add_older(history, after=after, last=last)
            for entry in history.entries:
                if entry.id > self.head:
                    self.append(entry)
        self.head = max(self.head, history.head)
        return start

    def add_older(self, history: ChannelHistory, *, after: int, last: int) -> None:
        """Adds the entries that are older than those in the cache. Newer entries arrive over the link."""
        start = min(history.start, last)
        self._note_read(history, start, after)
        if start < self.floor <= last:
            older = [entry for entry in history.entries if entry.id <= self.floor]
            self.entries[:0] = older
            self.filled = KEPT_FILLED
            self.size += sum(len(entry.frame) for entry in older)
            self.expires = max([self.expires, *[entry.expires for entry in older]])
            self.floor = start

    def _note_read(self, history: ChannelHistory, start: int, after: int) -> None:
        if not history.is_cut:
            self.note_gone(start, after)
        elif history.entries:
            self.is_too_small = True

    def note_gone(self, start: int, after: int) -> None:
        """If `start` is above `after`, notes that the broker no longer has the events in between."""
        if start > after:
            self.gone = max(self.gone, start)

    @property
    def cost(self) -> int:
        """About how many bytes of memory the entries take."""
        return self.size + ENTRY_COST * len(self.entries)

    def _replace(self, entries: list[Entry], start: int) -> None:
        self.entries = list(entries)
        self.expires = max([entry.expires for entry in entries], default=0)
        self.size = sum(len(entry.frame) for entry in entries)
        self.floor = start
        if entries:
            self.head = entries[-1].id

    def clear(self) -> None:
        """Drops all entries. Called when a new epoch has begun, before its history is read."""
        self._replace([], UNREAD)
        self.gone = self.head = 0

    def rewind(self, position: int) -> None:
        """Drops the entries after `position`. Called after a failover, which may have undone these events."""
        if self.floor > position:
            self.clear()
            return
        head = min(self.head, position)
        self._replace(self.between(self.floor, position), self.floor)
        self.head, self.gone = head, 0

    def trim(self, max_entries: int, max_bytes: int) -> None:
        """Drops the oldest entries until at most `max_entries` and `max_bytes` are left.

        The broker keeps the dropped entries.
        """
        excess = max(0, len(self.entries) - max_entries)
        size = self.size - sum(len(entry.frame) for entry in self.entries[:excess])
        while size > max_bytes:
            size -= len(self.entries[excess].frame)
            excess += 1
        if excess:
            self.floor = self.entries[excess - 1].id
            del self.entries[:excess]
            self.size = size
