"""What a worker has provably seen: the replicas of its channels and one position for all of them.

Fed with what the reader and the fetcher bring, it says what to dispatch. While it trusts its link, entries
pass at once. When the link broke, an entry is missing in a chain of `prev`, or the epoch changed, it *holds*:
the position stands still, live entries wait in the tails of the replicas, and all channels are read again;
then everything after the position goes out in the order of ids. So a cursor never runs ahead of an event
that is still to come. The caller locks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..brokers.base import Echo, History, LinkMessage, LiveEvent, Subscribed
from ..protocol.channel import BROADCAST
from ..protocol.cursor import MAX_ID, Cursor, Lineage, belongs
from ..protocol.entry import Entry
from .channel_cache import NOW, ChannelCache
from .fetcher import HistoryFetcher, HistoryReply, HistoryRequest
from .position import Gap, Snapshot
from .shard_recovery import ShardRecovery

logger = logging.getLogger(__name__)

Item = list[LinkMessage] | HistoryReply | None  # None: the link was lost


#: Entries a replica may exceed its bound by, so that it is trimmed in one go.
SLACK = 100


class Dispatch(NamedTuple):
    """What goes to the streams now: entries in order, after word of what was lost."""

    entries: list[tuple[ChannelCache, Entry]]
    lost: dict[str, Gap]  # channels that lost events which the broker no longer has
    new_epoch: bool  # all channels did, and cursors from before are worth nothing


class HistoryCache:
    """The replicas of one worker and how far they can be trusted."""

    def __init__(self, fetcher: HistoryFetcher, keep: int, keep_bytes: int) -> None:
        self.caches: dict[str, ChannelCache] = {}
        self.idle: dict[str, float] = {}  # channels without streams, since when (monotonic seconds)
        self._fetcher = fetcher
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._epoch: str | None = None
        self._lineage: Lineage = {}
        self._base = 0  # the first position known in this epoch
        self._position = 0  # every event up to here was dispatched
        self._seen = 0  # some events up to here were
        self._snapshot: Snapshot | None = None  # made of these when asked for
        self._heard = 0  # the highest id that came over the link
        self._heard_epoch: str | None = None
        self._heard_in_part = False  # that id is announced by several channels; more of it may come
        self._held = False
        self._confirmed: set[str] = set()  # channels that the link has confirmed
        self._joining: dict[str, HistoryRequest] = {}  # channels whose replica is not live yet
        self._resyncing: set[str] = set()  # those of them that streams already follow
        self._answers: list[HistoryReply] = []  # read at a moment that the link has not reached yet
        self._met: list[HistoryRequest] = []  # told when the position has moved: not while held
        self._lost: dict[str, Gap] = {}
        self._new_epoch = False
        self._before: Snapshot | None = None  # the last moment of the epoch before
        self._read = 0, 0.0  # a position, and the monotonic time at which the broker had come to it
        self._waiting: set[threading.Event] = set()  # of streams that begin when the new epoch has

    # -- channels ---------------------------------------------------------------------------------------

    def enter(self, name: str, after: int = NOW) -> bool:
        """Counts a stream that uses the channel; returns whether the channel must be subscribed.

        :param after: the position from which on its history is wanted as soon as it is.
        """
        self.idle.pop(name, None)
        cache = self.caches.get(name)
        fresh = cache is None
        if cache is None:
            cache = self.caches[name] = ChannelCache(self._keep)
            self._joining[name] = HistoryRequest(after)
        cache.users += 1
        return fresh

    def exit(self, name: str, now: float) -> None:
        """Counts a stream that left the channel."""
        cache = self.caches[name]
        cache.users -= 1
        if not cache.users:
            self.idle[name] = now

    def forget_idle(self, before: float) -> list[str]:
        """Drops channels that no stream has used since `before`; returns them."""
        gone = [name for name, since in self.idle.items() if since <= before]
        for name in gone:
            del self.idle[name], self.caches[name]
            self._joining.pop(name, None)
            self._resyncing.discard(name)
            self._confirmed.discard(name)
        return gone

    # -- streams that catch up --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether streams may begin. Not while a new epoch waits for the old ones to hear of their loss."""
        return self._epoch is not None and not self._new_epoch

    def snapshot(self) -> Snapshot:
        """Where the worker stands. Only when `ready`."""
        assert self._epoch is not None
        if self._snapshot is None:
            self._snapshot = Snapshot(self._epoch, self._position, self._seen, self._base, self._lineage)
        return self._snapshot

    def told(self) -> Snapshot:
        """Where streams that have begun stand: in the old epoch until they hear of the new one."""
        return self._before if self._before and self._new_epoch else self.snapshot()

    def blocks(self, shard_recovery: ShardRecovery) -> bool:
        """Whether something must be read before `resume` can go on; it is told when that is here."""
        if self._new_epoch:
            self._waiting.add(shard_recovery.waiter())
            return True
        snapshot = self.snapshot() if self.ready else None
        needs = shard_recovery.needs(self.caches, snapshot)
        for name, after in needs.items():
            self._ask(name, HistoryRequest(after, shard_recovery.waiter()))
        if needs or snapshot is None or not shard_recovery.must_settle(snapshot):
            return bool(needs)
        settled = shard_recovery.settling()
        if settled is not None:
            self._ask(BROADCAST, HistoryRequest(NOW, settled, shard_recovery.waiter()))
        return True

    def time_of(self, id: int) -> float:
        """The monotonic time at which the event with this id was stored, or a moment later: ids are the
        broker's microseconds."""
        last, at = self._read
        return at - (last - id) / 1e6

    def is_even(self, shard_recovery: ShardRecovery) -> bool:
        """Whether all channels have dispatched everything up to one position, and nothing after; else
        `resume` is told when that may be so."""
        if self._position == self._seen and not self._held:
            return True
        settled = shard_recovery.settling()
        if settled is not None:
            self._ask(BROADCAST, HistoryRequest(NOW, settled, shard_recovery.waiter()))
        return False

    # -- what comes in ----------------------------------------------------------------------------------

    def take(self, items: Iterable[Item]) -> Dispatch:
        """Works in what arrived and returns what is to be dispatched."""
        fresh: list[tuple[ChannelCache, Entry]] = []
        was_held = self._held
        for item in items:
            if item is None:
                self.distrust(link_up=False)
            elif isinstance(item, HistoryReply):
                self._answers.append(item)
            else:
                for signal in item:
                    self._hear(signal, fresh)
        self._adopt_reached()
        if self._held:
            if self._resyncing:
                return Dispatch([], {}, False)
            self._held = False
            was_held = True
        if was_held:
            fresh = self._since_seen()
        return self._advance(fresh)

    def _advance(self, fresh: list[tuple[ChannelCache, Entry]]) -> Dispatch:
        self._seen = max(self._seen, self._heard) if self._heard_epoch == self._epoch else self._seen
        self._position = self._seen - 1 if self._heard_in_part and self._seen == self._heard else self._seen
        self._snapshot = None
        dispatch = Dispatch(fresh, self._lost, self._new_epoch)
        self._lost, self._new_epoch = {}, False
        for waiter in self._waiting:
            waiter.set()
        self._waiting.clear()
        for ask in self._met:
            ask.met()
        self._met.clear()
        return dispatch

    def _since_seen(self) -> list[tuple[ChannelCache, Entry]]:
        held = [
            (cache, entry)
            for cache in self.caches.values()
            if cache.live
            for entry in cache.since(self._position, MAX_ID)
        ]
        return sorted(held, key=lambda pair: pair[1].id)

    def _hear(self, signal: LinkMessage, fresh: list[tuple[ChannelCache, Entry]]) -> None:
        if isinstance(signal, LiveEvent):
            self._hear_event(signal, fresh)
        elif isinstance(signal, Echo):
            self._note(signal.epoch, signal.last, False)
        elif isinstance(signal, Subscribed):
            self._hear_joined(signal.channel)

    def _hear_event(self, heard: LiveEvent, fresh: list[tuple[ChannelCache, Entry]]) -> None:
        cache = self.caches.get(heard.channel)
        if cache is None:
            return  # let go, and the broker does not know it yet
        try:
            entry = Entry.parse(heard.stored, heard.channel)
        except ValueError:
            logger.warning("ignoring a message on %r that is no event of ours", heard.channel)
            return
        self._note(entry.epoch, entry.id, entry.shared)
        if not cache.live:
            cache.tail.append(entry)
        elif entry.id > cache.head:
            if cache.misses(entry):
                logger.warning("an event of %r is missing; reading all channels again", heard.channel)
                self._find_hole(heard.channel, entry)
                cache.tail.append(entry)
            else:
                cache.append(entry)
                # While held, what is in the replica was not dispatched yet: nothing may go.
                full = len(cache.entries) > self._keep + SLACK or cache.size > self._keep_bytes
                if full and not self._held:
                    cache.trim(self._keep, self._keep_bytes)
                fresh.append((cache, entry))

    def _find_hole(self, name: str, entry: Entry) -> None:
        """An event before `entry` never came. One that later ones overtook cannot go out any more."""
        if entry.prev <= self._position:
            self._lose(Gap(name, self.caches[name].head, self._position))
        self.distrust(link_up=True)

    def _lose(self, gap: Gap) -> None:
        known = self._lost.get(gap.channel, gap)
        self._lost[gap.channel] = Gap(gap.channel, min(known.until, gap.until), max(known.after, gap.after))

    def _hear_joined(self, name: str) -> None:
        if name not in self.caches:
            return
        again = name in self._confirmed
        self._confirmed.add(name)
        if again:  # not of our asking: it may have been unsubscribed in between
            self.distrust(link_up=True)
        elif name in self._joining:
            self._submit(name)

    def _note(self, epoch: str, id: int, shared: bool) -> None:
        """Follows the order on the link."""
        if epoch != self._heard_epoch:
            known = {self._epoch, self._heard_epoch} - {None, epoch}
            self._heard_epoch, self._heard, self._heard_in_part = epoch, id, shared
            if known:  # answers from an earlier epoch, those under way too, are void
                self.distrust(link_up=True)
        elif id > self._heard:
            self._heard, self._heard_in_part = id, shared

    # -- distrust and reading again -----------------------------------------------------------------------

    def distrust(self, *, link_up: bool) -> None:
        """Holds everything back until all channels were read again.

        :param link_up: read now; else when the new link has confirmed each channel.
        """
        self._held = True
        self._fetcher.generation += 1
        outdated, self._answers = self._answers, []
        for name, cache in self.caches.items():
            cache.live = False
            cache.tail.clear()
            if name not in self._joining:
                self._joining[name] = HistoryRequest(self._position)
                self._resyncing.add(name)
        for answer in outdated:
            self._ask_again(answer.asks)
        if not link_up:
            # A read before the new link confirmed the channel would leave a hole after it.
            self._ask_again(self._fetcher.withdraw())
            self._confirmed.clear()
            for ask in self._joining.values():
                ask.confirmed = False
        for name in [name for name in self._joining if name in self._confirmed]:  # in an order that is told
            self._submit(name)

    def _submit(self, name: str) -> None:
        """Asks for a joining channel that the link has confirmed."""
        self._joining[name].confirmed = True
        self._fetcher.submit(name, self._joining[name])

    def _ask(self, name: str, ask: HistoryRequest) -> None:
        """Asks for a channel's history; a joining channel is asked for anyway, once it is confirmed."""
        joining = self._joining.get(name)
        if joining is None:
            self._fetcher.submit(name, ask)
        elif joining is not ask:
            joining.widen(ask.after, ask.waiters)

    def _ask_again(self, asks: Mapping[str, list[HistoryRequest]]) -> None:
        for name, wishes in asks.items():
            for ask in wishes:
                self._ask(name, ask)

    def _adopt_reached(self) -> None:
        """Takes over the answers whose moment the link has reached: what it brings later is newer."""
        waiting, self._answers = self._answers, []
        for answer in waiting:
            if answer.generation != self._fetcher.generation:
                self._ask_again(answer.asks)
            elif answer.history.epoch == self._heard_epoch and answer.history.last <= self._heard:
                self._adopt(answer)
            else:
                self._answers.append(answer)

    def _adopt(self, answer: HistoryReply) -> None:
        history = answer.history
        self._read = history.last, answer.at
        if history.epoch != self._epoch:
            self._change_epoch(history)
        for name, wishes in answer.asks.items():
            if answer.generation != self._fetcher.generation:  # distrust since: its tails are gone
                self._ask_again(answer.asks)
                return
            cache = self.caches.get(name)
            if cache is not None:
                past, asked = history.channels[name], answer.after[name]
                if name in answer.confirmed and self._joining.get(name) in wishes:
                    if cache.overlooked(past, self._position):
                        logger.error("an event of %r was passed by; its streams are told", name)
                        self._lose(Gap(name, cache.head, self._position))
                    start = cache.adopt(past, asked=asked, last=history.last, known=self._position)
                    self._go_live(name, cache, history.last, start)
                else:
                    cache.reach_back(past, asked=asked, last=history.last)
            self._met += wishes

    def _go_live(self, name: str, cache: ChannelCache, last: int, start: int) -> None:
        """Goes on with what the link brought after `last`; what was after `start` is in the answer."""
        del self._joining[name]
        if name in self._resyncing:
            self._resyncing.discard(name)
            if start > self._position:
                self._lose(Gap(name, self._position, start))
        cache.live = True
        tail = list(cache.tail)
        cache.tail.clear()
        for entry in tail:
            if entry.epoch != self._epoch or entry.id <= max(last, cache.head):
                continue
            if cache.misses(entry):
                self._find_hole(name, entry)
                return
            cache.append(entry)

    def _change_epoch(self, history: History) -> None:
        before = self.snapshot() if self._epoch else None
        goes_on = before and belongs(Cursor(before.epoch, before.seen), history.epoch, history.lineage)
        self._epoch, self._lineage, self._snapshot = history.epoch, history.lineage, None
        if goes_on:  # after a failover or restart that lost nothing the streams have got
            for cache in self.caches.values():
                cache.rewind(self._seen)
            return
        self._seen = self._position = self._base = history.last
        if before:
            self._begin_anew(before)

    def _begin_anew(self, before: Snapshot) -> None:
        """The broker lost its data: nothing older counts, and all channels are read from here on.

        Not from where they were asked: positions of the old epoch mean nothing in this one.
        """
        self._before = self._before if self._new_epoch else before
        self._new_epoch = True
        self._lost.clear()
        for cache in self.caches.values():
            cache.restart()
        for ask in self._joining.values():
            ask.after = self._base
        self.distrust(link_up=True)
