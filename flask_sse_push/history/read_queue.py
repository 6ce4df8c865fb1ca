"""The queue of the history fetcher: which requests the next call to the broker answers.

Requests that hold the dispatch go first: those of new channels, and those of channels that are read again
after the link broke. Then requests for channels, for pages, and for channels that failed before take turns.
So a stream that missed much delays another stream by one call at most.
"""

from __future__ import annotations

import threading
from collections import deque

from .page import Answered, PageRequest, is_wanted
from .room import Room, Share

#: At most how many channels one history call reads. 500 channels keep the broker busy for about 1 ms.
MAX_AT_ONCE = 500
#: A page of a stream takes at most a quarter of the room of a call. Reading and sending such a page takes the
#: broker and the worker 1 to 3 ms, so events for other streams wait no longer.
PAGE_PART = 4
#: The smallest room of a page, in bytes. Pages are small while many streams wait for one.
SMALLEST_PAGE = 65_536
#: After this many calls have failed although the broker answered others, the events count as unreadable.
MAX_FAILURES = 3


class HistoryRequest:
    """A request for a channel's history after the position `after`.

    :param waiters: the streams that wait for the reply.
    :param is_join: whether the channel itself needs the reply before it can take live events.
    """

    __slots__ = ("after", "confirmed", "failures", "is_join", "least", "waiters")

    def __init__(self, after: int, *waiters: Answered, is_join: bool = False) -> None:
        self.after = after
        self.least = after  # the position after which the channel itself needs its history
        self.confirmed = False  # whether the current link has confirmed its subscription to the channel
        self.failures = 0
        self.is_join = is_join
        self.waiters: set[Answered] = set(waiters)

    def merge(self, other: HistoryRequest) -> None:
        """Extends this request, so that its reply also answers `other`."""
        self.after = min(self.after, other.after)
        self.waiters |= other.waiters

    def start_at(self, position: int) -> None:
        """Replaces the positions of an epoch that has ended."""
        self.after = self.least = position

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still needs the reply."""
        return self.is_join or is_wanted(self.waiters)


Requests = dict[str, list[HistoryRequest]]


class ChannelRead:
    """A call that reads the newest entries of some channels. Without channels, the call is a probe.

    :param share: the room for entries that only streams need; None if the room is full.
    """

    def __init__(self, requests: Requests, share: Share | None = None) -> None:
        self.requests = requests
        self.share = share
        self.after = {name: min(map(self._after, several)) for name, several in requests.items()}
        self.confirmed = frozenset(
            name for name, several in requests.items() if any(request.confirmed for request in several)
        )

    def _after(self, request: HistoryRequest) -> int:
        return request.after if self.share is not None and is_wanted(request.waiters) else request.least


class PageRead:
    """A call that reads one page.

    :param room: how many bytes the entries of the page may have.
    """

    def __init__(self, request: PageRequest, room: int, share: Share | None) -> None:
        self.request = request
        self.room = room
        self.share = share


class ReadQueue:
    """The requests that wait for a call. Any thread may call the methods, which never block.

    :param room: the room of the worker for pages and replies.
    :param call_room: how many bytes the entries of one call may have.
    """

    def __init__(self, room: Room, call_room: int) -> None:
        self.call_room = call_room
        self._room = room
        self._lock = threading.Lock()
        self._first: Requests = {}
        self._asked: Requests = {}
        self._apart: deque[tuple[str, list[HistoryRequest]]] = deque()  # channels that are read one by one
        self._resyncs: deque[PageRequest] = deque()
        self._pages: dict[tuple[object, ...], PageRequest] = {}
        self._turn = 0

    def __len__(self) -> int:
        """How many channels and pages wait to be read."""
        queues = self._first, self._asked, self._apart, self._resyncs, self._pages
        return sum(map(len, queues))

    def add(self, name: str, request: HistoryRequest) -> None:
        """Adds a request for a channel, unless it is in the queue already."""
        with self._lock:
            queued = (self._first if request.is_join else self._asked).setdefault(name, [])
            if request not in queued:
                queued.append(request)

    def add_apart(self, name: str, requests: list[HistoryRequest]) -> None:
        """Adds the requests for a channel that is read alone, because a call for it failed."""
        with self._lock:
            self._apart.append((name, requests))

    def add_page(self, request: PageRequest, *, again: bool = False) -> PageRequest:
        """Adds a request for a page. Returns the request that will have the page: an equal one if queued.

        :param again: whether the request was in the queue before. Its streams wait for the page of this very
            request, so no equal request takes its place.
        """
        with self._lock:
            if request.is_resync:
                self._resyncs.append(request)
                return request
            key = request.key
            if again and key in self._pages:
                key = (*key, id(request))
            queued = self._pages.setdefault(key, request)
            queued.waiters |= request.waiters
            return queued

    def withdraw(self) -> Requests:
        """Removes and returns all requests for channels. Drops the pages of the history cache itself."""
        with self._lock:
            requests, self._first = self._first, {}
            for name, several in [*self._asked.items(), *self._apart]:
                requests.setdefault(name, []).extend(several)
            self._asked = {}
            self._apart.clear()
            self._resyncs.clear()
        return requests

    def take(self) -> ChannelRead | PageRead:
        """Removes and returns the requests that the next call answers; a probe if there are none."""
        with self._lock:
            if self._first:
                names = list(self._first)[:MAX_AT_ONCE]
                requests = {name: self._first.pop(name) for name in names}
                return ChannelRead(requests, self._room.take(self.call_room))
            if self._resyncs:
                return PageRead(
                    self._resyncs.popleft(), self.call_room, self._room.take_always(self.call_room)
                )
            for _ in range(3):
                self._turn += 1
                read = (self._take_asked, self._take_page, self._take_apart)[self._turn % 3]()
                if read is not None:
                    return read
            return ChannelRead({})

    def _take_asked(self) -> ChannelRead | None:
        share = self._room.take(self.call_room) if self._asked else None
        requests: Requests = {}
        while share is not None and self._asked and len(requests) < MAX_AT_ONCE:
            name = next(iter(self._asked))
            wanted = [request for request in self._asked.pop(name) if request.is_wanted]
            if wanted:
                requests[name] = wanted
        return ChannelRead(requests, share) if requests else None

    def _take_page(self) -> PageRead | None:
        for key, request in list(self._pages.items()):
            if not request.is_wanted:
                del self._pages[key]
                continue
            most = min(self.call_room // PAGE_PART, self._room.size // (2 * len(self._pages)))
            room = max(most, min(self.call_room, SMALLEST_PAGE)) >> 2 * request.failures
            share = self._room.take(room)
            request.is_crowded = share is None
            return None if share is None else PageRead(self._pages.pop(key), max(1, room), share)
        return None

    def _take_apart(self) -> ChannelRead | None:
        while self._apart:
            name, several = self._apart[0]
            wanted = [request for request in several if request.is_wanted]
            share = self._room.take(self.call_room) if wanted else None
            if wanted and share is None:
                return None
            self._apart.popleft()
            if wanted:
                return ChannelRead({name: wanted}, share)
        return None
