"""All channel caches of one shard, and the position up to which the worker has dispatched every event.

It gets the messages of the link and the replies of the fetcher, and says which entries to dispatch. Usually
entries are dispatched at once. It *holds* when the link broke, when a `prev` shows that an entry is missing,
and when the epoch changed. Then the position stands still, live entries wait in the tails of the caches, and
all channels are read again. After that, everything after the position is dispatched in the order of ids. So
no cursor runs ahead of an event that is still to come. The caller holds the hub's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import NamedTuple

from ..brokers.base import Echo, History, LinkMessage, LiveEvent
from ..protocol.cursor import MAX_ID, Cursor, Lineage, belongs
from ..protocol.entry import Entry
from .channel_cache import NOW, ChannelCache
from .chunk import ChunkCache
from .fetcher import HistoryFetcher, HistoryReply
from .pending_reads import PendingReads
from .position import Gap, Snapshot

logger = logging.getLogger(__name__)

#: The messages of one read of the link, a reply of the fetcher, or None: the link broke.
Item = list[LinkMessage] | HistoryReply | None

#: Entries by which a channel cache may exceed its bound, so that it is trimmed many at a time.
SLACK = 100


class Dispatch(NamedTuple):
    """What the streams get now: first the notices about lost events, then the entries in order."""

    entries: list[tuple[ChannelCache, Entry]]
    lost: dict[str, Gap]  # channels of which the broker no longer has all events
    new_epoch: bool  # whether the broker lost its data: all channels lost events, older cursors are void


class HistoryCache:
    """The channel caches of one shard.

    :param keep: entries of each channel that are kept.
    :param keep_bytes: bytes of each channel that are kept.
    :param number: the number of the shard.
    """

    def __init__(self, fetcher: HistoryFetcher, keep: int, keep_bytes: int, number: int = 0) -> None:
        self.number = number
        self.caches: dict[str, ChannelCache] = {}
        self.idle: dict[str, float] = {}  # channels without streams, by monotonic time, oldest first
        self.reads = PendingReads(fetcher)
        self.chunk_cache = ChunkCache()
        #: How far the worker has seen; None until the first reply, and until streams know of a new epoch.
        self.snapshot: Snapshot | None = None
        #: The last snapshot of an epoch that the streams know: the one to tell clients.
        self.announced = Snapshot("", 0, 0)
        #: Whether a new epoch began that the open streams do not know yet.
        self.new_epoch = False
        self.waiters: set[threading.Event] = set()  # to be set after the next dispatch
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._epoch: str | None = None
        self._lineage: Lineage = {}
        self._base = 0  # the first position known in this epoch
        self._position = 0  # every event up to here was dispatched
        self._seen = 0  # some events up to here were dispatched
        self._heard = 0  # the highest id that arrived over the link
        self._heard_epoch: str | None = None
        self._heard_in_part = False  # whether other channels may still announce that id
        self.holds = False  # see above
        self._lost: dict[str, Gap] = {}
        self._read_at = 0, 0.0  # a position, and the monotonic time at which the broker had reached it

    # -- channels ---------------------------------------------------------------------------------------

    def enter(self, name: str, after: int = NOW) -> bool:
        """Counts a stream that uses the channel; returns whether the channel must be subscribed.

        :param after: a new channel is read from this position on.
        """
        cache = self.caches.get(name)
        if cache is None:
            cache = self.caches[name] = ChannelCache(self._keep)
            cache.users = 1
            self.reads.join(name, after)
            return True
        if not cache.users:
            self.idle.pop(name, None)
        cache.users += 1
        return False

    def exit(self, name: str, now: float) -> None:
        """Counts a stream that left the channel. `now` is monotonic seconds, and grows from call to call."""
        cache = self.caches[name]
        cache.users -= 1
        if not cache.users:
            self.idle[name] = now

    def forget_idle(self, before: float) -> list[str]:
        """Drops the channels that no stream has used since `before`; returns them."""
        gone = []
        for name, since in self.idle.items():
            if since > before:  # so are all that follow
                break
            gone.append(name)
        for name in gone:
            del self.idle[name], self.caches[name]
            self.reads.forget(name)
        return gone

    # -- positions --------------------------------------------------------------------------------------

    def stream_cursor(self, at_least: int) -> Cursor:
        """The cursor of streams that have every event up to `at_least`, and all that was dispatched."""
        announced = self.announced
        return Cursor(announced.epoch, max(announced.position, at_least))

    def is_settled(self) -> bool:
        """Whether everything up to one position was dispatched, and nothing after it."""
        return self._position == self._seen and not self.holds

    def time_of(self, id: int) -> float:
        """The monotonic time at which the event with this id was stored, or a moment later. Ids count the
        broker's microseconds."""
        last, at = self._read_at
        return at - (last - id) / 1e6

    # -- messages and replies ---------------------------------------------------------------------------

    def take(self, items: Iterable[Item]) -> Dispatch:
        """Takes the messages and replies that arrived; returns what is to be dispatched."""
        fresh: list[tuple[ChannelCache, Entry]] = []
        held = self.holds
        for item in items:
            if item is None:
                self._hold(link_up=False)
            elif isinstance(item, HistoryReply):
                self.reads.replies.append(item)
            else:
                for message in item:
                    if isinstance(message, LiveEvent):
                        self._take_event(message, fresh)
                    elif isinstance(message, Echo):
                        if message.epoch != self._heard_epoch:
                            self._note_epoch(message.epoch)
                        if message.last > self._heard:
                            self._heard, self._heard_in_part = message.last, False
                    elif message.channel in self.caches and not self.reads.confirm(message.channel):
                        self._hold(link_up=True)
        if self.reads.replies:
            for reply in self.reads.usable(self._heard_epoch, self._heard):
                self._take_reply(reply)
        if self.holds:
            if self.reads.resyncing:
                return Dispatch([], {}, False)
            self.holds = False
            held = True
        return self._dispatch(self._undispatched() if held else fresh)

    def _dispatch(self, entries: list[tuple[ChannelCache, Entry]]) -> Dispatch:
        if self._heard_epoch == self._epoch and self._heard > self._seen:
            self._seen = self._heard
        in_part = self._heard_in_part and self._seen == self._heard
        self._position = self._seen - 1 if in_part else self._seen
        dispatch = Dispatch(entries, self._lost, self.new_epoch)
        self._lost, self.new_epoch = {}, False
        self._renew_snapshot()
        if self.waiters:
            for waiter in self.waiters:
                waiter.set()
            self.waiters.clear()
        return dispatch

    def _renew_snapshot(self) -> None:
        if self._epoch is not None and not self.new_epoch:
            self.announced = Snapshot(self._epoch, self._position, self._seen, self._base, self._lineage)
            self.snapshot = self.announced

    def _undispatched(self) -> list[tuple[ChannelCache, Entry]]:
        """All entries after the position, in the order of their ids."""
        found = [
            (cache, entry)
            for cache in self.caches.values()
            if cache.live
            for entry in cache.between(self._position, MAX_ID)
        ]
        return sorted(found, key=lambda pair: pair[1].id)

    def _take_event(self, event: LiveEvent, fresh: list[tuple[ChannelCache, Entry]]) -> None:
        cache = self.caches.get(event.channel)
        if cache is None:
            return  # unsubscribed, but the broker has not done that yet
        try:
            entry = Entry.parse(event.stored, event.channel)
        except ValueError:
            logger.warning("ignoring a message on %r that is no event of ours", event.channel)
            return
        if entry.epoch != self._heard_epoch:
            self._note_epoch(entry.epoch)
        if entry.id > self._heard:
            self._heard, self._heard_in_part = entry.id, entry.shared
        if not cache.live:
            cache.tail.append(entry)
        elif entry.id > cache.head:
            if cache.misses_one_before(entry):
                logger.warning("an event of %r is missing; reading all channels again", event.channel)
                self._hold_for_gap(event.channel, entry)
                cache.tail.append(entry)
                return
            cache.append(entry)
            fresh.append((cache, entry))
            full = len(cache.entries) > self._keep + SLACK or cache.size > self._keep_bytes
            if full and not self.holds:  # while holding, the entries in the cache are not dispatched yet
                cache.trim(self._keep, self._keep_bytes)

    def _note_epoch(self, epoch: str) -> None:
        """Notes that the link has come to another epoch."""
        known = {self._epoch, self._heard_epoch} - {None, epoch}
        self._heard_epoch, self._heard, self._heard_in_part = epoch, -1, False
        if known:  # replies from an earlier epoch are void, and so are calls under way
            self._hold(link_up=True)

    # -- holding ----------------------------------------------------------------------------------------

    def _hold(self, *, link_up: bool) -> None:
        """Dispatches nothing until all channels were read again.

        :param link_up: whether to read now. Otherwise a channel is read when the new link has confirmed it.
        """
        self.holds = True
        for cache in self.caches.values():
            cache.live = False
            cache.tail.clear()
        self.reads.restart(self.caches, self._position, link_up=link_up)

    def _hold_for_gap(self, name: str, entry: Entry) -> None:
        """Holds, as an event before `entry` never arrived. If later events overtook it, it is lost."""
        if entry.prev <= self._position:
            self._note_lost(Gap(name, self.caches[name].head, self._position))
        self._hold(link_up=True)

    def _note_lost(self, gap: Gap) -> None:
        known = self._lost.get(gap.channel, gap)
        self._lost[gap.channel] = Gap(gap.channel, min(known.until, gap.until), max(known.after, gap.after))

    # -- replies ----------------------------------------------------------------------------------------

    def _take_reply(self, reply: HistoryReply) -> None:
        history = reply.history
        self._read_at = history.last, reply.received_at
        if history.epoch != self._epoch:
            self._change_epoch(history)
        for name, requests in reply.requests.items():
            if self.reads.is_void(reply):  # it holds again since: the tails were dropped
                self.reads.request_again(reply.requests)
                return
            cache = self.caches.get(name)
            if cache is not None:
                if name in reply.confirmed and self.reads.joining.get(name) in requests:
                    self._go_live(name, cache, reply)
                else:
                    cache.add_older(history.channels[name], after=reply.after[name], last=history.last)
            for request in requests:
                self.waiters |= request.waiters
                request.waiters.clear()

    def _go_live(self, name: str, cache: ChannelCache, reply: HistoryReply) -> None:
        """Adds a joining channel's history, and what the link brought after it."""
        history, last = reply.history.channels[name], reply.history.last
        if cache.lacks_event(history, self._position):
            logger.error("an event of %r was never dispatched; its streams get a reset", name)
            self._note_lost(Gap(name, cache.head, self._position))
        start = cache.adopt(history, after=reply.after[name], last=last, known=self._position)
        del self.reads.joining[name]
        if name in self.reads.resyncing:
            self.reads.resyncing.discard(name)
            if start > self._position:
                self._note_lost(Gap(name, self._position, start))
        cache.live = True
        tail = list(cache.tail)
        cache.tail.clear()
        for entry in tail:
            if entry.epoch != self._epoch or entry.id <= max(last, cache.head):
                continue
            if cache.misses_one_before(entry):
                self._hold_for_gap(name, entry)
                return
            cache.append(entry)

    def _change_epoch(self, history: History) -> None:
        known = self._epoch is not None
        # After a failover or a restart that lost none of the events dispatched here, the streams go on.
        continues = known and belongs(Cursor(str(self._epoch), self._seen), history.epoch, history.lineage)
        self._epoch, self._lineage = history.epoch, history.lineage
        if continues:
            for cache in self.caches.values():
                cache.rewind(self._seen)
        else:
            self._seen = self._position = self._base = history.last
            if known:
                self._begin_epoch()
        self._renew_snapshot()

    def _begin_epoch(self) -> None:
        """The broker lost its data. Nothing older is valid, and all channels are read from the base on.

        Positions that were asked for before belong to the old epoch.
        """
        self.new_epoch = True
        self.snapshot = None
        self._lost.clear()
        for cache in self.caches.values():
            cache.clear()
        for request in self.reads.joining.values():
            request.after = self._base
        self._hold(link_up=True)
