"""The broker for one process: keeps events in memory, and keeps the same promises as the other brokers."""

from __future__ import annotations

import heapq
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from itertools import islice

from ..config import ChannelPolicies, ChannelPolicy
from ..errors import BrokerUnavailable
from ..protocol.cursor import MAX_ID, Cursor
from ..protocol.entry import Entry, Publication, stored_form
from . import forks, native_threads
from .base import (
    ENTRY_COST,
    READ_ROOM,
    UNBOUNDED,
    Broker,
    Echo,
    History,
    Link,
    LinkMessage,
    LiveEvent,
    Newest,
    Subscribed,
    channel_history,
    repeated_id,
)
from .counts import MemoryCounts

#: At most this many idempotency ids are remembered. The same limit applies to the names that `claim` takes,
#: such as those of used tickets.
MAX_REMEMBERED = 10_000
#: At most this many messages wait in a link. With more, the link breaks: Redis also disconnects a subscriber
#: that does not read.
MAX_UNREAD = 100_000


class MemoryBroker(Broker):
    """Keeps a list of entries for each channel. One lock for everything makes each step atomic.

    :param policies: say how much of each channel's history is kept.
    """

    def __init__(self, policies: ChannelPolicies, epoch: str | None = None) -> None:
        self.counts = MemoryCounts()
        self._policies = policies
        self._lock = native_threads.lock()
        forks.watch(self)
        self._epoch = epoch or secrets.token_hex(4)
        self._last = 0
        self._horizon = 0
        self._time = self._behind = (
            0  # the system's clock at the last call of `_clock`; how far it was set back
        )
        self._heads: OrderedDict[str, int] = OrderedDict()  # newest id by channel; lowest id first
        self._lists: dict[str, deque[bytes]] = {}
        self._ends: dict[str, int] = {}  # by channel: the position at which its list is dropped
        #: A heap of positions and channels: `_ends` says at each position whether the list is dropped.
        self._ending: list[tuple[int, str]] = []
        #: For channels whose bytes are limited: the length of the list, and how many bytes the bodies have.
        self._totals: dict[str, tuple[int, int]] = {}
        self._subscribers: dict[str, list[MemoryLink]] = {}  # by channel
        self._links: dict[str, MemoryLink] = {}  # by inbox
        self._published: OrderedDict[str, list[Cursor]] = OrderedDict()  # by idempotency id
        self._claims: list[tuple[float, str]] = []  # a heap: when a claim ends, and its name
        self._claimed: set[str] = set()

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        with self._lock:
            if once is not None and once in self._published:
                earlier = self._published[once]
                if len(earlier) != len(publications):
                    raise repeated_id(once, len(earlier), len(publications))
                return earlier
            cursors = list(map(self._store, publications))
            self._forget_quiet()
            if once is not None:
                self._published[once] = cursors
                if len(self._published) > MAX_REMEMBERED:
                    self._published.popitem(last=False)
            return cursors

    def _store(self, publication: Publication) -> Cursor:
        id, expires = self._next_id(), 0
        if publication.ttl is not None:
            expires = self._time + self._behind + round(publication.ttl * 1_000_000)
        for name in publication.lists:
            prev = self._heads.get(name, -self._horizon)
            stored = stored_form(self._epoch, id, prev, publication, expires)
            kept, policy = self._lists.setdefault(name, deque()), self._policies[name]
            kept.append(stored)
            if policy.bytes:
                self._trim_bytes(name, kept, policy)
            while len(kept) > policy.history:
                kept.popleft()
            end = id + round(policy.ttl * 1_000_000)
            if end < self._ends.get(name, MAX_ID):
                heapq.heappush(self._ending, (end, name))
            self._ends[name] = end
            self._heads[name] = id
            self._heads.move_to_end(name)
            for link in self._subscribers.get(name, ()):
                link.put(LiveEvent(name, stored))
        return Cursor(self._epoch, id)

    def _trim_bytes(self, name: str, kept: deque[bytes], policy: ChannelPolicy) -> None:
        """Drops the oldest entries of a list until the bodies fit, or only the newest entry is left."""
        length, total = self._totals.get(name, (0, 0))
        if length != len(kept) - 1:  # the channel's policy had no limit before
            total = sum(map(_body_size, islice(kept, len(kept) - 1)))
        total += _body_size(kept[-1])
        while len(kept) > 1 and (total > policy.bytes or len(kept) > policy.history):
            total -= _body_size(kept.popleft())
        self._totals[name] = len(kept), total

    def _next_id(self) -> int:
        now = time.time_ns() // 1000
        if now < self._time:
            self._behind += self._time - now
        self._time = now
        self._last = max(self._last + 1, now)
        return self._last

    def _forget_quiet(self) -> None:
        """Drops each list whose channel had no event for the `ttl` of its policy, and forgets channels.

        The broker forgets a channel that had no event for the longest `ttl` of all policies. Then `_horizon`
        moves to the beginning of this time: forgotten channels had no event after `_horizon`.
        """
        while self._ending and self._ending[0][0] <= self._last:
            _, name = heapq.heappop(self._ending)
            end = self._ends.get(name, 0)
            if end > self._last:
                heapq.heappush(self._ending, (end, name))
            elif end:
                for kept in (self._ends, self._lists, self._totals):
                    kept.pop(name, None)
        quiet = self._last - round(self._policies.longest_ttl * 1_000_000)
        while self._heads:
            name, head = next(iter(self._heads.items()))
            if head > quiet or name in self._lists:
                return
            self._horizon = max(self._horizon, quiet)
            del self._heads[name]

    def heads(self, most: int) -> dict[str, int]:
        with self._lock:
            self._forget_quiet()
            return dict(islice(reversed(self._heads.items()), most))

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> History:
        with self._lock:
            last, is_first = self._new_position(inbox), True
            channels = {}
            for name, position in after.items():
                entries, is_cut = self._newest_entries(name, position, room)
                if is_cut and not is_first:
                    entries, room = [], 0
                is_first = is_first and not entries
                room -= sum(_cost(entry) for entry in entries if entry.id > position)
                head = self._heads.get(name, 0)
                channels[name] = channel_history(position, entries, head, self._horizon, is_cut=is_cut)
            return History(self._epoch, last, channels, clock=self._time + self._behind)

    def _new_position(self, inbox: str) -> int:
        last = self._next_id()
        self._forget_quiet()
        if inbox in self._links:
            self._links[inbox].put(Echo(self._epoch, last))
        return last

    def _newest_entries(self, name: str, after: int, room: int = UNBOUNDED) -> tuple[list[Entry], bool]:
        """Returns the newest entries of a channel, from the last one at or before `after` on.

        Also returns whether there was no room for all of them.
        """
        entries: list[Entry] = []
        is_cut = False
        if self._heads.get(name, 0) > after:
            for stored in reversed(self._lists.get(name, ())):
                if room <= 0:
                    is_cut = True
                    break
                entries.append(Entry.parse(stored, name))
                if entries[-1].id <= after:
                    break
                room -= _cost(entries[-1])
        entries.reverse()
        return entries, is_cut

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        with self._lock:
            last = until = self._new_position(inbox)
            found = {name: self._newest_entries(name, position)[0] for name, position in after.items()}
            ids: dict[int, int] = {}
            for name, entries in found.items():
                for entry in entries:
                    if entry.id > after[name]:
                        ids[entry.id] = ids.get(entry.id, 0) + _cost(entry)
            for id in sorted(ids):
                if room <= 0:
                    until = id - 1
                    break
                room -= ids[id]
            channels = {}
            for name, entries in found.items():
                page = [entry for entry in entries if entry.id <= until] or entries[:1]
                is_whole = not entries or entries[-1].id <= until
                head, end = self._heads.get(name, 0), MAX_ID if is_whole else until
                channels[name] = channel_history(after[name], page, head, self._horizon, until=end)
            return History(self._epoch, last, channels, until=until, clock=self._time + self._behind)

    def newest(self, channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        with self._lock:
            now = time.time_ns() // 1000 + self._behind
            entries = [entry for name in channels for entry in self._newest_entries(name, 0)[0]]
            ids = {entry.id for entry in entries if entry.id < before and not entry.is_expired(now)}
            found = sorted(ids, reverse=True)
            return Newest(found[:count], found[count - 1] if len(found) > count else 0)

    def link(self, inbox: str) -> Link:
        with self._lock:
            link = self._links[inbox] = MemoryLink(self)
            return link

    def subscribe(self, link: MemoryLink, channels: Sequence[str]) -> None:
        """Sends live events of `channels` to `link` from now on."""
        with self._lock:
            for name in channels:
                subscribers = self._subscribers.setdefault(name, [])
                if link not in subscribers:
                    subscribers.append(link)
                link.put(Subscribed(name))

    def unsubscribe(self, link: MemoryLink, channels: Sequence[str] | None = None) -> None:
        """Stops sending live events of `channels` to `link`; None means of all channels."""
        with self._lock:
            for name in list(self._subscribers) if channels is None else channels:
                subscribers = self._subscribers.get(name, [])
                if link in subscribers:
                    subscribers.remove(link)
                if not subscribers:
                    self._subscribers.pop(name, None)

    def claim(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._claims and self._claims[0][0] <= now:
                self._claimed.discard(heapq.heappop(self._claims)[1])
            if name in self._claimed:
                return False
            if len(self._claims) >= MAX_REMEMBERED:
                raise BrokerUnavailable(f"{MAX_REMEMBERED} names are claimed already")
            heapq.heappush(self._claims, (now + seconds, name))
            self._claimed.add(name)
            return True

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        self._lock = native_threads.lock()

    def wake(self, inbox: str) -> None:
        if inbox in self._links:
            self._links[inbox].put(None)

    def close(self) -> None:
        with self._lock:
            for kept in (self._heads, self._lists, self._subscribers, self._links, self._published):
                kept.clear()
            for other in (self._ends, self._ending, self._totals, self._claimed, self._claims):
                other.clear()


def _body_size(stored: bytes) -> int:
    return len(stored) - stored.index(b"\n") - 1


def _cost(entry: Entry) -> int:
    return len(entry.frame) + ENTRY_COST


class MemoryLink(Link):
    """A link to the memory broker: a queue that the broker fills and one reader empties."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._unread: deque[LinkMessage | None] = deque()
        self._filled = threading.Event()  # gevent's queues lose what native threads put into them

    def put(self, message: LinkMessage | None) -> None:
        """Adds a message to the queue; None only wakes the reader. Does nothing if the queue is full.

        Called by the broker.
        """
        if len(self._unread) <= MAX_UNREAD:
            self._unread.append(message)
            self._filled.set()

    def subscribe(self, channels: Sequence[str]) -> None:
        self._broker.subscribe(self, channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._broker.unsubscribe(self, channels)

    def read(self, timeout: float) -> list[LinkMessage]:
        if len(self._unread) > MAX_UNREAD:
            self.close()
            raise BrokerUnavailable(f"{MAX_UNREAD} events wait unread in this process")
        self._filled.wait(timeout)
        self._filled.clear()  # clear before reading: `put` adds a message, then sets the flag
        messages: list[LinkMessage] = []
        room = READ_ROOM
        while self._unread and room > 0:
            message = self._unread.popleft()
            if message is not None:
                messages.append(message)
                room -= ENTRY_COST + (len(message.stored) if isinstance(message, LiveEvent) else 0)
        if self._unread:
            self._filled.set()
        return messages

    def close(self) -> None:
        self._broker.unsubscribe(self)
