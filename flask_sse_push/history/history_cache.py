"""The history cache: all channel caches of one shard, and how far the worker has dispatched their entries.

The history cache takes the messages of the link and the replies of the fetcher, and returns the entries to
dispatch. Usually it returns an entry as soon as the entry arrives. It pauses when the link breaks, when the
`prev` of an entry shows that an event is missing, and when the epoch changes. During a pause the position
does not move. Live entries wait in the tails of the channel caches, and all channels are read again from the
broker. After the pause, all entries after the position are dispatched in the order of their ids. So no stream
gets a cursor that is later than an event which the stream has yet to get. The caller holds the hub's lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..brokers.base import ENTRY_COST, Echo, History, LinkMessage, LiveEvent
from ..config import ChannelPolicies
from ..protocol.cursor import MAX_ID, Cursor, Lineage, belongs
from ..protocol.entry import Entry
from .broker_clock import BrokerClock
from .channel_cache import SLACK, ChannelCache
from .chunk import ChunkCache
from .fetcher import HistoryFetcher, HistoryReply
from .page import Answered, Page, PageRequest, cost_of
from .pending_reads import PendingReads
from .position import Gap, Snapshot
from .read_queue import HistoryRequest
from .resync import Resyncs
from .trusted_caches import TrustedCaches

logger = logging.getLogger(__name__)

#: The messages of one read of the link, or a reply of the fetcher, or None, which means that the link broke.
Item = list[LinkMessage] | HistoryReply | None

#: At most this many traced events wait for the dispatcher.
MAX_TRACED = 100


class Dispatch(NamedTuple):
    """The entries and the losses to send to the streams now: first the resets, then the entries in order."""

    entries: list[tuple[ChannelCache, Entry]]
    lost: dict[str, Gap]  # the gap of each channel that lost events
    new_epoch: bool  # whether the broker lost its data, so that older cursors are no longer valid


class HistoryCache(TrustedCaches):
    """The channel caches of one shard, and how far the worker has dispatched their entries.

    :param policies: say how many entries and bytes the cache keeps for each channel.
    :param keep_bytes: at most how many bytes the cache keeps for one channel.
    :param number: the number of the shard.
    :param hold: about how many bytes the cache keeps for all channels together.
    """

    def __init__(
        self,
        fetcher: HistoryFetcher,
        policies: ChannelPolicies,
        keep_bytes: int,
        number: int = 0,
        hold: int = 32_000_000,
    ) -> None:
        super().__init__(PendingReads(fetcher), policies, keep_bytes, hold)
        self.number = number
        self._resyncs = Resyncs(self.reads, hold)
        self.chunk_cache = ChunkCache()
        self.broker_clock = BrokerClock()
        #: Traced events that were dispatched; a worker that traces takes them.
        self.traced: deque[Entry] = deque(maxlen=MAX_TRACED)
        #: The current snapshot. None until the first reply, and in a new epoch until streams got the reset.
        self.snapshot: Snapshot | None = None
        #: The last `snapshot` that was not None. Cursors for clients are made from this snapshot.
        self.announced = Snapshot("", 0, 0)
        #: Whether a new epoch began and the open streams did not get the reset about it yet.
        self.new_epoch = False
        self.waiters: set[Answered] = set()  # they are set at the next dispatch
        self._lineage: Lineage = {}
        self._base = 0  # the first position that this worker knows in the current epoch
        self._seen = 0  # the id of the newest dispatched event, or a later position
        self.paused = False  # whether entries wait until all channels were read again

    # -- positions --------------------------------------------------------------------------------------

    def stream_cursor(self, at_least: int) -> Cursor:
        """Returns the cursor of streams that are up to date: they got every event that the worker sent.

        :param at_least: the cursor has this position or a later one, because these streams already have every
            event up to this position.
        """
        announced = self.announced
        return Cursor(announced.epoch, max(announced.position, at_least))

    def is_settled(self) -> bool:
        """Whether every event up to some position was dispatched, and no event after this position."""
        return self._position == self._seen and not self.paused

    # -- messages and replies ---------------------------------------------------------------------------

    def take(self, items: Iterable[Item]) -> Dispatch:
        """Processes the messages and replies that arrived; returns the entries and losses to dispatch."""
        fresh: list[tuple[ChannelCache, Entry]] = []
        was_paused = self.paused
        for item in items:
            if item is None:
                self._pause(link_up=False)
            elif isinstance(item, HistoryReply):
                self._note_reply(item)
            else:
                for message in item:
                    if isinstance(message, LiveEvent):
                        self._take_event(message, fresh)
                    elif isinstance(message, Echo):
                        if not self._heard.note_echo(message):
                            self._distrust()
                    elif message.channel in self.caches and not self.reads.confirm(message.channel):
                        self._pause(link_up=True)
        if self.reads.replies:
            for reply in self.reads.usable(self._heard.epoch, self._heard.id - self._heard.in_part):
                self._take_reply(reply)
        if self.paused:
            if self.reads.resyncing:
                return Dispatch([], {}, False)
            self.paused = False
            was_paused = True
            self._resyncs.release()
        return self._dispatch(self._undispatched() if was_paused else fresh)

    def _dispatch(self, entries: list[tuple[ChannelCache, Entry]]) -> Dispatch:
        heard = self._heard
        if heard.epoch == self._epoch and heard.id > self._seen:
            self._seen = heard.id
        in_part = heard.in_part and self._seen == heard.id
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
        """Returns the entries of all channels after the worker's position, in the order of their ids."""
        found = [
            (cache, entry)
            for cache in self.caches.values()
            if cache.live
            for entry in cache.between(self._position, MAX_ID)
            if not entry.expires or not entry.is_expired(self.clock())
        ]
        return sorted(found, key=lambda pair: pair[1].id)

    def _take_event(self, event: LiveEvent, fresh: list[tuple[ChannelCache, Entry]]) -> None:
        cache = self.caches.get(event.channel)
        if cache is None:
            return  # the channel was unsubscribed after the broker had sent the event
        try:
            if event.proven is False:
                raise ValueError("another program has published it")
            entry = Entry.parse(event.stored, event.channel)
            entry.check_body()
        except ValueError as error:
            if self._checks.refuse(event.channel, error) and cache.live:
                self._note_lost(Gap(event.channel, cache.head, self._position))
            return
        if event.proven is None:
            self._take_unproven(entry)
            return
        if not self._heard.note_event(entry) and self._heard.epoch is not None:
            self._doubt(event.channel, cache, entry)
            return
        self._cost += len(entry.frame) + ENTRY_COST
        if not cache.live:
            cache.tail.append(entry)
        elif entry.id > cache.head:
            if cache.misses_one_before(entry):
                logger.warning("an event of channel %r is missing; reading all channels again", event.channel)
                self._pause_for_gap(event.channel, entry)
                cache.tail.append(entry)
                return
            cache.append(entry)
            fresh.append((cache, entry))
            if entry.traceparent is not None:
                self.traced.append(entry)
            full = len(cache.entries) > cache.keep + SLACK or cache.size > cache.keep_bytes
            if full and not self.paused:  # in a pause, entries of the cache are not dispatched yet
                cache.trim(cache.keep, cache.keep_bytes)

    # -- pauses -----------------------------------------------------------------------------------------

    def _pause(self, *, link_up: bool) -> None:
        """Pauses delivery until all channels were read again from the broker.

        :param link_up: whether to read the channels now. If False, each channel is read when the new link has
            confirmed its subscription.
        """
        self.paused = True
        for cache in self.caches.values():
            cache.live = False
            cache.tail.clear()
        self.reads.restart(self.caches, self._position, link_up=link_up)

    def _pause_for_gap(self, name: str, entry: Entry) -> None:
        """Pauses delivery because an event before `entry` never arrived.

        If later events were dispatched already, the missing event is lost: streams get events in order only.
        """
        if entry.prev <= self._position:
            self._note_lost(Gap(name, self.caches[name].head, self._position))
        self._pause(link_up=True)

    # -- replies ----------------------------------------------------------------------------------------

    def _take_reply(self, reply: HistoryReply) -> None:
        history = reply.history
        self.broker_clock.note(history.last, reply.sent_at, reply.received_at)
        if history.epoch != self._epoch or self._distrusted:
            self._change_epoch(history)
        self._cost += sum([cost_of(found.entries) for found in history.channels.values()])
        for name, requests in reply.requests.items():
            if self.reads.is_outdated(reply):  # `_go_live` paused delivery again and dropped the tails
                self.reads.request_again(reply)
                return
            cache = self.caches.get(name)
            if cache is not None:
                self._checks.drop_wrong_bodies(name, history)
                if name in reply.confirmed and self.reads.joining.get(name) in requests:
                    self._join(name, cache, reply)
                else:
                    cache.add_older(history.channels[name], after=reply.after[name], last=history.last)
                    self.note_filled(cache)
            self._answer(requests)
        if reply.page is not None:
            self._take_page(reply, reply.page)
        elif reply.requests and not self.paused:  # in a pause, entries of the caches are not dispatched yet
            self.trim()

    def _take_page(self, reply: HistoryReply, request: PageRequest) -> None:
        for name in list(reply.history.channels):
            self._checks.drop_wrong_bodies(name, reply.history)
        if request.is_resync:
            whole = self._resyncs.add(reply, request)
            if whole is not None:
                (name,) = whole.requests
                self._go_live(name, self.caches[name], whole)
                self._answer(whole.requests[name])
                if not self.paused:
                    self.trim()
                    self._resyncs.release()
            return
        for name, found in reply.history.channels.items():
            if name in self.caches:
                self.caches[name].note_gone(found.start, reply.after[name])
        request.page = Page(reply.history, reply.after, reply.share)
        self._answer([request])

    def _answer(self, requests: Iterable[HistoryRequest | PageRequest]) -> None:
        """Ends the wait of the streams that made the requests, at the next dispatch."""
        for request in requests:
            self.waiters |= request.waiters
            request.waiters.clear()

    def _join(self, name: str, cache: ChannelCache, reply: HistoryReply) -> None:
        """Makes a channel live, unless it needs older entries for which the call had no room."""
        request, found = self.reads.joining[name], reply.history.channels[name]
        if found.is_cut and min(found.start, reply.history.last) > request.least:
            self._resyncs.begin(name, request)
        else:
            self._go_live(name, cache, reply)

    def _go_live(self, name: str, cache: ChannelCache, reply: HistoryReply) -> None:
        """Adds the history of a channel to its cache, then the newer entries that arrived over the link."""
        history, last = reply.history.channels[name], reply.history.last
        if cache.lacks_event(history, self._position):
            logger.error("an event of channel %r was never dispatched; its streams get a reset", name)
            self._note_lost(Gap(name, cache.head, self._position))
        start = cache.adopt(history, after=reply.after[name], last=last, known=self._position)
        self.note_filled(cache)
        del self.reads.joining[name]
        if name in self.reads.resyncing:
            self.reads.resyncing.discard(name)
            if start > self._position:
                self._note_lost(Gap(name, self._position, start))
        if self._check_tail(name, cache):
            return
        after_gap = cache.go_live(str(self._epoch), last)
        if after_gap is not None:
            self._pause_for_gap(name, after_gap)

    def _change_epoch(self, history: History) -> None:
        known = self._epoch is not None
        # After a failover or restart, streams go on if the broker still has all dispatched events.
        seen = Cursor(str(self._epoch), self._seen)
        continues = known and not self._distrusted and belongs(seen, history.epoch, history.lineage)
        self._distrusted = False
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
        """Drops all entries, because the broker lost its data, and reads all channels from `_base` on.

        Requests made earlier get a new position too, because their positions belong to the old epoch.
        """
        self.new_epoch = True
        self.snapshot = None
        self._lost.clear()
        for cache in self.caches.values():
            cache.clear()
        for request in self.reads.joining.values():
            request.start_at(self._base)
        self._pause(link_up=True)
