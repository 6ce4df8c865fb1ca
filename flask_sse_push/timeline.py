"""What a worker has provably seen: the replicas of its channels and one position for all of them.

Fed with what the reader and the fetcher bring, it says what to dispatch. While it trusts its link, entries
pass at once. When the link broke, an entry is missing in a chain of `prev`, or the epoch changed, it *holds*:
the position stands still, live entries wait in the tails of the replicas, and all channels are read again;
then everything after the position goes out in the order of ids. So a cursor never runs ahead of an event
that is still to come. The caller locks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from .brokers.base import BROADCAST, Echo, Entry, Heard, Joined, Signal
from .cursor import MAX_ID
from .fetcher import Answer, Ask, Fetcher
from .replica import NOW, Replica
from .resume import Moment, Resume

logger = logging.getLogger(__name__)

Item = list[Signal] | Answer | None  # None: the link was lost


#: Entries a replica may exceed its bound by, so that it is trimmed in one go.
SLACK = 100


class Dispatch(NamedTuple):
    """What goes to the streams now: entries in order, after word of what was lost."""

    entries: list[tuple[Replica, Entry]]
    lost: list[str]  # channels that lost events which the broker no longer has
    new_epoch: bool  # all channels did, and cursors from before are worth nothing


class Timeline:
    """The replicas of one worker and how far they can be trusted."""

    def __init__(self, fetcher: Fetcher, keep: int, keep_bytes: int) -> None:
        self.replicas: dict[str, Replica] = {}
        self.idle: dict[str, float] = {}  # channels without streams, since when (monotonic seconds)
        self._fetcher = fetcher
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._epoch: str | None = None
        self._base = 0  # the first position known in this epoch
        self._position = 0  # every event up to here was dispatched
        self._seen = 0  # some events up to here were
        self._heard = 0  # the highest id that came over the link
        self._heard_epoch: str | None = None
        self._heard_in_part = False  # that id is announced by several channels; more of it may come
        self._held = False
        self._confirmed: set[str] = set()  # channels that the link has confirmed
        self._joining: dict[str, Ask] = {}  # channels whose replica is not live yet
        self._resyncing: set[str] = set()  # those of them that streams already follow
        self._answers: list[Answer] = []  # read at a moment that the link has not reached yet
        self._lost: list[str] = []
        self._new_epoch = False

    # -- channels ---------------------------------------------------------------------------------------

    def enter(self, name: str) -> bool:
        """Counts a stream that uses the channel; returns whether the channel must be subscribed."""
        self.idle.pop(name, None)
        replica = self.replicas.get(name)
        fresh = replica is None
        if replica is None:
            replica = self.replicas[name] = Replica(self._keep)
            self._joining[name] = Ask(NOW)
        replica.users += 1
        return fresh

    def exit(self, name: str, now: float) -> None:
        """Counts a stream that left the channel."""
        replica = self.replicas[name]
        replica.users -= 1
        if not replica.users:
            self.idle[name] = now

    def forget_idle(self, before: float) -> list[str]:
        """Drops channels that no stream has used since `before`; returns them."""
        gone = [name for name, since in self.idle.items() if since <= before]
        for name in gone:
            del self.idle[name], self.replicas[name]
            self._joining.pop(name, None)
            self._resyncing.discard(name)
            self._confirmed.discard(name)
        return gone

    # -- streams that catch up --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._epoch is not None

    def moment(self) -> Moment:
        """Where the worker stands. Only when `ready`."""
        assert self._epoch is not None
        return Moment(self._epoch, self._position, self._seen, self._base)

    def blocks(self, resume: Resume) -> bool:
        """Whether something must be read before `resume` can go on; it is told when that is here."""
        moment = self.moment() if self.ready else None
        needs = resume.needs(self.replicas, moment)
        if not needs and moment and resume.must_settle(moment):
            needs = {BROADCAST: NOW}
        for name, after in needs.items():
            ask = Ask(after)
            ask.waiters.add(resume.waiter())
            self._ask(name, ask)
        return bool(needs)

    # -- what comes in ----------------------------------------------------------------------------------

    def take(self, items: Iterable[Item]) -> Dispatch:
        """Works in what arrived and returns what is to be dispatched."""
        fresh: list[tuple[Replica, Entry]] = []
        was_held = self._held
        for item in items:
            if item is None:
                self.distrust(link_up=False)
            elif isinstance(item, Answer):
                self._answers.append(item)
            else:
                for signal in item:
                    self._hear(signal, fresh)
        self._adopt_reached()
        if self._held:
            if self._resyncing:
                return Dispatch([], [], False)
            self._held = False
            was_held = True
        if was_held:
            fresh = self._since_seen()
        return self._advance(fresh)

    def _advance(self, fresh: list[tuple[Replica, Entry]]) -> Dispatch:
        self._seen = max(self._seen, self._heard) if self._heard_epoch == self._epoch else self._seen
        self._position = self._seen - 1 if self._heard_in_part and self._seen == self._heard else self._seen
        dispatch = Dispatch(fresh, self._lost, self._new_epoch)
        self._lost, self._new_epoch = [], False
        return dispatch

    def _since_seen(self) -> list[tuple[Replica, Entry]]:
        held = [
            (replica, entry)
            for replica in self.replicas.values()
            if replica.live
            for entry in replica.since(self._position, MAX_ID)
        ]
        return sorted(held, key=lambda pair: pair[1].id)

    def _hear(self, signal: Signal, fresh: list[tuple[Replica, Entry]]) -> None:
        if isinstance(signal, Heard):
            self._hear_event(signal, fresh)
        elif isinstance(signal, Echo):
            self._note(signal.epoch, signal.last, False)
        elif isinstance(signal, Joined):
            self._hear_joined(signal.channel)

    def _hear_event(self, heard: Heard, fresh: list[tuple[Replica, Entry]]) -> None:
        replica = self.replicas.get(heard.channel)
        if replica is None:
            return  # let go, and the broker does not know it yet
        try:
            entry = Entry.parse(heard.stored)
        except (ValueError, KeyError):
            logger.warning("ignoring a message on %r that is no event of ours", heard.channel)
            return
        self._note(entry.epoch, entry.id, entry.shared)
        if not replica.live:
            replica.tail.append(entry)
        elif entry.id > replica.head:
            if replica.misses(entry):
                logger.warning("an event of %r is missing; reading all channels again", heard.channel)
                self.distrust(link_up=True)
                replica.tail.append(entry)
            else:
                replica.append(entry)
                # While held, what is in the replica was not dispatched yet: nothing may go.
                full = len(replica.entries) > self._keep + SLACK or replica.size > self._keep_bytes
                if full and not self._held:
                    replica.trim(self._keep, self._keep_bytes)
                fresh.append((replica, entry))

    def _hear_joined(self, name: str) -> None:
        if name not in self.replicas:
            return
        again = name in self._confirmed
        self._confirmed.add(name)
        if again:  # not of our asking: it may have been unsubscribed in between
            self.distrust(link_up=True)
        elif name in self._joining:
            self._fetcher.submit(name, self._joining[name])

    def _note(self, epoch: str, id: int, shared: bool) -> None:
        """Follows the order on the link."""
        if epoch != self._heard_epoch:
            self._heard_epoch, self._heard, self._heard_in_part = epoch, id, shared
            if self._epoch not in (None, epoch):
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
        for name, replica in self.replicas.items():
            replica.live = False
            replica.tail.clear()
            if name not in self._joining:
                self._joining[name] = Ask(self._position)
                self._resyncing.add(name)
        for answer in outdated:
            for name, ask in answer.asks.items():
                self._ask(name, ask)
        if not link_up:
            self._confirmed.clear()
        for name in self._confirmed & self._joining.keys():
            self._fetcher.submit(name, self._joining[name])

    def _ask(self, name: str, ask: Ask) -> None:
        """Asks for a channel's history; a joining channel is asked for anyway, once it is confirmed."""
        joining = self._joining.get(name)
        if joining is None:
            self._fetcher.submit(name, ask)
        elif joining is not ask:
            joining.widen(ask.after, ask.waiters)

    def _adopt_reached(self) -> None:
        """Takes over the answers whose moment the link has reached: what it brings later is newer."""
        waiting, self._answers = self._answers, []
        for answer in waiting:
            if answer.generation != self._fetcher.generation:
                for name, ask in answer.asks.items():
                    self._ask(name, ask)
            elif answer.history.epoch == self._heard_epoch and answer.history.last <= self._heard:
                self._adopt(answer)
            else:
                self._answers.append(answer)

    def _adopt(self, answer: Answer) -> None:
        history = answer.history
        if history.epoch != self._epoch:
            self._enter_epoch(history.epoch, history.last)
        for name, ask in answer.asks.items():
            if answer.generation != self._fetcher.generation:  # distrust since: its tails are gone
                self._ask(name, ask)
                continue
            replica = self.replicas.get(name)
            if replica is not None:
                joins = self._joining.get(name) is ask
                known = self._position if joins else MAX_ID
                start = replica.adopt(
                    history.channels[name], asked=answer.after[name], last=history.last, known=known
                )
                if joins:
                    self._go_live(name, replica, lost=start > known)
            ask.met()

    def _go_live(self, name: str, replica: Replica, *, lost: bool) -> None:
        del self._joining[name]
        if name in self._resyncing:
            self._resyncing.discard(name)
            if lost and not self._new_epoch:
                self._lost.append(name)
        replica.live = True
        tail = list(replica.tail)
        replica.tail.clear()
        for entry in tail:
            if entry.epoch != self._epoch or entry.id <= replica.head:
                continue
            if replica.misses(entry):
                self.distrust(link_up=True)
                return
            replica.append(entry)

    def _enter_epoch(self, epoch: str, position: int) -> None:
        """The broker lost its data, or this is the first answer: nothing older counts."""
        self._new_epoch = self._epoch is not None
        self._epoch = epoch
        self._seen = self._position = self._base = position
        self._lost.clear()
        for replica in self.replicas.values():
            replica.restart()
