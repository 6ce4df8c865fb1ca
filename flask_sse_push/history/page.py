"""Pages: the missed events of streams that are too far behind for the channel caches, a few at a time.

A channel cache keeps the newest entries of a channel, for all streams of the worker. A stream that missed
more reads the older events in pages. A page has the next events of all the stream's channels, up to a
position. The stream asks for the next page when it has sent the events of the last one. So a stream holds one
page in memory, however much it missed.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Protocol

from ..brokers.base import ENTRY_COST, History
from ..protocol.entry import Entry
from .room import Share

_id = attrgetter("id")


def between(entries: list[Entry], after: int, until: int) -> list[Entry]:
    """Returns the entries with ids above `after`, up to and including `until`."""
    if not entries or entries[-1].id <= after:
        return []
    return entries[bisect_right(entries, after, key=_id) : bisect_right(entries, until, key=_id)]


def cost_of(entries: Iterable[Entry]) -> int:
    """Returns about how many bytes of memory the entries take."""
    return sum([len(entry.frame) + ENTRY_COST for entry in entries])


class Answered(Protocol):
    """Somebody who waits for an answer of the broker."""

    def set(self) -> None:
        """Says that the answer has come."""


class Waiter:
    """A stream's wait for an answer of the broker.

    :attr gone: whether the stream does not need the answer any more, for example because its client has left.
    """

    __slots__ = ("_answered", "gone")

    def __init__(self) -> None:
        self._answered = threading.Event()
        self.gone = False

    def set(self) -> None:
        """Ends the wait."""
        self._answered.set()

    def wait(self, timeout: float) -> bool:
        """Blocks until `set` is called, at most `timeout` seconds. Returns whether it was called."""
        answered = self._answered.wait(timeout)
        self._answered.clear()
        return answered


class Page:
    """The events of some channels after the position `after`, up to and including the position `until`.

    :param start: for each channel, the position after which the page has its events. If it is higher than the
        position after which the page was read, the events in between are gone.
    :param share: the room that the page takes.
    """

    __slots__ = ("_share", "after", "entries", "epoch", "expires", "start", "until")

    def __init__(self, history: History, after: Mapping[str, int], share: Share | None) -> None:
        self.epoch = history.epoch
        self.after = dict(after)
        self.until = min(history.until, history.last)
        self.start = {name: found.start for name, found in history.channels.items()}
        self.entries = {name: found.entries for name, found in history.channels.items()}
        of_all = self.entries.values()
        #: When the last of the entries with a time to live expires; see `Entry.expires`.
        self.expires = max([entry.expires for entries in of_all for entry in entries], default=0)
        self._share = share  # given back when the page is not used any more
        if share is not None:
            share.resize(sum(map(cost_of, self.entries.values())))

    def covers(self, needs: Mapping[str, int]) -> bool:
        """Whether the page has all events of these channels from the given positions to its end."""
        begins = all(name in self.after and self.after[name] <= after for name, after in needs.items())
        return begins and min(needs.values()) < self.until

    def between(self, name: str, after: int, until: int) -> list[Entry]:
        """Returns the entries of a channel with ids above `after`, up to and including `until`."""
        return between(self.entries[name], after, min(until, self.until))


class PageRequest:
    """A request for a page.

    :param after: for each channel, the position after which its events are read.
    :param newest: if not None, the page begins with this many newest events of all channels together, and
        the positions in `after` are 0.
    :param is_resync: whether the history cache itself needs the page to go on with the dispatch. Such a
        request goes before the requests of streams.
    """

    __slots__ = (
        "after",
        "before",
        "begin",
        "failures",
        "found",
        "generation",
        "ids",
        "is_crowded",
        "is_lost",
        "is_resync",
        "newest",
        "page",
        "waiters",
    )

    def __init__(self, after: Mapping[str, int], newest: int | None = None, is_resync: bool = False) -> None:
        self.after = dict(after)
        self.newest = newest
        self.is_resync = is_resync
        self.begin = 0  # the position after which the newest events are; known when the page was read
        self.ids: list[int] = []  # the ids of the newest events, the highest first
        self.found = 0  # how many of the newest events the search has found
        self.before = 0  # the search goes on with ids below this one; 0 if no search is under way
        self.generation = 0  # the fetcher's generation when the search began
        self.waiters: set[Waiter] = set()
        self.page: Page | None = None
        self.is_crowded = False  # whether the request waits because there is no room for a page
        self.is_lost = False  # whether the events cannot be read
        self.failures = 0  # how many calls for the page failed although the broker answered other calls

    @property
    def key(self) -> tuple[object, ...]:
        """Two requests with the same key can share one page."""
        return (tuple(self.after.items()), self.newest, self.is_resync)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the page."""
        return self.is_resync or is_wanted(self.waiters)


def is_wanted(waiters: Iterable[object]) -> bool:
    """Whether at least one of the waiters still needs the answer."""
    return any(not getattr(waiter, "gone", False) for waiter in waiters)
