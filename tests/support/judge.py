"""The delivery promise as a model: what was published, and whether a stream got what it was entitled to.

A stream is due every event of its channels after the position it began with, once and in order, but those
that an `sse.reset` of the channel stands for; no cursor may pass an event that is still due; and no reset may
come while the broker has everything.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol import batch
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import EARLIEST, LOST, Cursor, parse
from flask_sse_push.protocol.entry import Publication

#: An event as a client sees it.
Fields = dict[str, str]

#: Cursors that nobody was given.
BOGUS = (LOST, "nonsense")
FUTURE = "-zzzzzzzzz"
#: The place of a stream that has been given none yet.
NOWHERE = (0, 0)


class Fact(NamedTuple):
    """An event that was published."""

    serial: str
    place: tuple[int, int]  # number of the epoch, id
    channels: frozenset[str]
    exclude: frozenset[str]
    fleeting: bool  # with a time to live: it need not be replayed


class Fork(NamedTuple):
    """Where a failover parted two epochs: the older one's events after `last` were lost."""

    parent: int  # number of the epoch
    last: int


class Truth:
    """All that was published, in order, and what the broker still keeps of it."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.facts: list[Fact] = []
        self._places: list[tuple[int, int]] = []
        self._epochs = {broker._epoch: 0}
        self._forks: dict[int, Fork] = {}  # by the number of the newer epoch
        self._trimmed: dict[str, int] = {}
        self.tampered: set[str] = set()  # channels whose lists were cut from outside

    def note(self, cursor: Cursor, serial: str, publication: Publication) -> None:
        channels, exclude = frozenset(publication.channels), frozenset(publication.exclude)
        place = (self._epochs[cursor.epoch], cursor.id)
        assert not self._places or place > self._places[-1], "ids do not increase"
        self.facts.append(Fact(serial, place, channels, exclude, publication.ttl is not None))
        self._places.append(place)

    def new_epoch(self, epoch: str) -> None:
        self._epochs[epoch] = len(self._epochs)

    def fork(self, epoch: str, parent: str, last: int) -> None:
        """The broker goes on as `epoch` from a copy that held `parent` up to the position `last`."""
        # The copy may bring back what workers know to be trimmed, or to have expired with its list.
        for name in {name for fact in self.facts for name in fact.channels}:
            self._trimmed[name] = max(self._trimmed.get(name, 0), self.kept(name))
        self.new_epoch(epoch)
        self._forks[self._epochs[epoch]] = Fork(self._epochs[parent], last)

    @property
    def forks(self) -> int:
        """How many failovers there were."""
        return len(self._forks)

    def survives(self, place: tuple[int, int]) -> bool:
        """Whether the broker's data of now begin with all there was at `place`."""
        number, last = len(self._epochs) - 1, None
        while number != place[0] and number in self._forks:
            number, last = self._forks[number]
        return number == place[0] and (last is None or place[1] <= last)

    def parted(self, old: tuple[int, int], new: tuple[int, int]) -> bool:
        """Whether a failover undid what a stream at `old` may have seen before it came to `new`."""
        number = new[0] if old != NOWHERE else old[0]
        while number > old[0] and number in self._forks:
            number, last = self._forks[number]
            if number == old[0]:
                return old[1] > last
        return number != old[0]

    def place(self, text: str) -> tuple[int, int]:
        """What a cursor stands for; it must be one that somebody gave."""
        cursor = parse(text)
        assert cursor is not None, f"{text!r} is no cursor"
        assert cursor.epoch in self._epochs, f"{text!r} has an epoch that never was"
        if cursor.epoch == self._broker._epoch:
            assert cursor.id <= self._broker._last, f"{text!r} is a position of the future"
        number, id = self._epochs[cursor.epoch], cursor.id
        while number in self._forks and id <= self._forks[number].last:
            number = self._forks[number].parent
        return number, id

    def index(self, place: tuple[int, int]) -> int:
        """How many events stand at or before `place`."""
        return bisect_right(self._places, place)

    def kept(self, name: str) -> int:
        """The index from which on everything of the channel is still with the broker."""
        entries = [stored.split(b" ") for stored in self._broker._lists.get(name, ())]
        kept = {(self._epochs[epoch.decode()], int(id)) for epoch, id, *_ in entries}
        for at in range(len(self.facts) - 1, -1, -1):
            fact = self.facts[at]
            if name in fact.channels and fact.place not in kept and not self.undone(at):
                return at + 1
        return 0

    def undone(self, at: int) -> bool:
        """Whether a failover lost the event: it is as if it had never been, but for those who saw it."""
        return any(
            self.facts[at].place[0] == fork.parent and self.facts[at].place[1] > fork.last
            for fork in self._forks.values()
        )

    def kept_since(self, names: Iterable[str], at: int) -> dict[str, int]:
        """For each channel the index from which on its events can be had; not before `at`."""
        end = len(self.facts)
        first = {name: max(at, self.kept(name), self._trimmed.get(name, 0)) for name in names}
        return {name: end if name in self.tampered else first[name] for name in names}

    def is_shared(self, fact: Fact) -> bool:
        """Whether several channels have the event."""
        return len(fact.channels) > 1

    def proves(self, name: str, place: tuple[int, int]) -> bool:
        """Whether the broker can show that nothing after `place` is gone."""
        if not self.survives(place):
            return False
        limit = self._broker._horizon
        if kept := self._broker._lists.get(name):
            limit = min(limit, int(kept[0].split(b" ")[1]) - 1)
        index = self.index(place)
        if index and self.is_shared(self.facts[index - 1]):
            index -= 1  # the worker may know the event from another channel, and not from this one
        return place[1] >= limit and self.kept(name) <= index


class Wish(NamedTuple):
    """A change of channels that was asked for."""

    join: frozenset[str]
    leave: frozenset[str]
    start: StartPoint
    sure: bool  # nothing has happened since that excuses a loss
    since: int  # the index from which on events of the new channels are due


class Judge:
    """Reads the frames of one connection and fails at the first one that breaks the promise."""

    def __init__(
        self,
        truth: Truth,
        who: set[str],
        channels: Iterable[str],
        start: StartPoint,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        self._truth = truth
        self._is_behind = is_behind  # whether the stream's worker has not heard of the last failover
        self._who = who
        self._channels = {*channels, BROADCAST}
        self._start = start
        given = start.cursor or ""
        self._forks = truth.forks
        self._bogus = given in BOGUS or given.endswith(FUTURE)
        self._since: dict[str, int] = {}  # events of a channel are due from this index on
        self._unsure: set[str] = set()  # channels of which it is not known exactly from where they go on
        self._at: int | None = None  # everything before this index was settled
        self._place = NOWHERE
        self.cursor = start.cursor
        self.open = False
        self._got: set[str] = set()
        self._wishes: list[Wish] = []
        self._missed_at = NOWHERE  # up to where the channels that are being joined were told of

    def unpacked(self, frame: bytes) -> Iterator[Fields]:
        """What a client hands out for one frame: a batch is taken apart."""
        fields: Fields = {}
        for line in frame.decode().split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        if fields.get("event") != "sse.batch":
            yield fields
            return
        messages = json.loads(fields["data"])
        assert 0 < len(messages) <= batch.MAX_EVENTS
        assert messages[-1]["id"] == fields["id"]
        for message in messages:
            yield {"event": message["type"], "data": message["data"], "id": message["id"]}

    def read(self, fields: Fields) -> None:
        kind, data = fields.get("event", "message"), fields["data"]
        cursor = fields.get("id")
        if kind == "sse.open":
            self._opened(json.loads(data), cursor)
        elif kind == "sse.reset":
            self._lost(json.loads(data), cursor)
        elif kind == "sse.heartbeat":
            assert cursor is not None
            self._moved(cursor)
        elif kind == "sse.missed":
            self._missed(json.loads(data))
        elif kind == "sse.channels":
            assert cursor is not None
            self._changed(json.loads(data), cursor)
        else:
            assert kind == "message", kind
            assert cursor is not None
            self._event(data, cursor)
        if cursor is not None:
            self.cursor = cursor

    def _opened(self, data: dict[str, Any], cursor: str | None) -> None:
        assert not self.open, "opened twice"
        assert cursor is not None
        self.open = True
        if cursor == LOST:
            assert not data["resumed"]
            if self._start.cursor and not self._bogus:
                self._place = self._truth.place(self._start.cursor)
            return
        if cursor == EARLIEST:
            assert not data["resumed"]
            self._at = 0
            self._since = self._truth.kept_since(self._channels, 0)
            return
        self._place = self._truth.place(cursor)
        self._at = self._truth.index(self._place)
        self._since = dict.fromkeys(self._channels, self._at)
        if self._start.cursor:
            assert cursor == self._start.cursor
        else:
            assert not data["resumed"]
        if self._start.newest:
            self._since = self._truth.kept_since(self._channels, self._at)

    def _lost(self, data: dict[str, Any], cursor: str | None) -> None:
        shown = {name for name in self._channels if name != BROADCAST}
        names = set(data["channels"])
        whole = names >= shown
        assert names, "a reset of nothing"
        if not names & self._channels:
            self._lost_before_joining(names, data["reason"], cursor)
            return
        assert names <= self._channels
        if data["reason"] == "history":
            # A failover may bring back what had been trimmed.
            fresh = self._forks == self._truth.forks and not self._is_behind()
            sure = names - self._truth.tampered - self._unsure if fresh else ()
            for name in sure:
                assert not self._truth.proves(name, self._place), f"a reset of {name!r} without need"
        elif data["reason"] == "epoch":
            assert whole
        else:
            assert data["reason"] == "cursor"
            assert self._bogus, "a good cursor was refused"
        if cursor is not None:
            assert whole
            place = self._truth.place(cursor)
            if data["reason"] == "epoch" and self._at is not None:
                assert place[0] > self._place[0], "an epoch reset in the same epoch"
            index = self._truth.index(place)
            assert self._at is None or index >= self._at, "a reset that goes back"
            self._place, self._at = place, index
            self._since = dict.fromkeys(self._channels, index)
        else:
            for name in self._channels if whole else names:
                self._since[name] = len(self._truth.facts)
                self._unsure.add(name)

    def _moved(self, cursor: str) -> None:
        place = self._truth.place(cursor)
        self._pass_over(self._truth.index(place))
        assert place >= self._place, "the cursor went back"
        assert not self._truth.parted(self._place, place), "nobody was told of a failover's losses"
        self._place = place

    def _event(self, serial: str, cursor: str) -> None:
        place = self._truth.place(cursor)
        index = self._truth.index(place) - 1
        fact = self._truth.facts[index]
        assert (fact.place, fact.serial) == (place, serial), "a cursor that is not its event's"
        assert fact.channels & self._channels, f"event {serial} is for others"
        assert not fact.exclude & self._who, f"event {serial} excludes this stream"
        assert self._at is not None, "an event before the reset"
        assert index >= self._at, f"event {serial} came twice, or late"
        assert serial not in self._got, f"event {serial} came as missed before"
        self._got.add(serial)
        assert not self._truth.parted(self._place, place), "nobody was told of a failover's losses"
        self._pass_over(index)
        self._at = index + 1
        self._place = place

    def _pass_over(self, until: int) -> None:
        """Goes on to the index `until`; nothing before it may be due."""
        assert self._at is not None
        assert until >= self._at, "the cursor went back"
        lost = [self._truth.facts[at].serial for at in range(self._at, until) if self._due(at)]
        assert not lost, f"the cursor passed the events {lost}"
        self._at = until

    def _due(self, at: int) -> bool:
        fact = self._truth.facts[at]
        wanted = any(name in fact.channels and at >= since for name, since in self._since.items())
        wanted = wanted and not self._truth.undone(at)
        return wanted and not fact.fleeting and not fact.exclude & self._who

    # -- channels joined and left --------------------------------------------------------------------------

    def wishes(self, join: Iterable[str], leave: Iterable[str], start: StartPoint) -> None:
        """The stream is to change its channels, if the command reaches its worker."""
        names = frozenset(join)
        place = parse(start.cursor) if start.cursor else None
        since = 0
        if place is not None and start.cursor not in BOGUS and not (start.cursor or "").endswith(FUTURE):
            since = self._truth.index(self._truth.place(start.cursor or ""))
        self._wishes.append(Wish(names, frozenset(leave), start, place is not None, since))

    def _missed(self, data: dict[str, Any]) -> None:
        names = set(data["channels"])
        assert names
        assert not names & self._channels, "missed events of a channel the stream has"
        assert any(names <= wish.join for wish in self._wishes), "nobody asked for these"
        until = self._truth.place(data["cursor"])
        for event in data["events"]:
            place = self._truth.place(event["id"])
            fact = self._truth.facts[self._truth.index(place) - 1]
            assert (fact.place, fact.serial) == (place, event["data"])
            assert fact.channels & names
            assert not fact.exclude & self._who
            assert self._missed_at < place <= until, "missed events out of order"
            # After a failover that lost something, all before it may be had again by another channel.
            again = fact.serial in self._got and self._forks == self._truth.forks
            assert not again, f"event {fact.serial} came twice"
            self._got.add(fact.serial)
        assert self._missed_at < until
        self._missed_at = until

    def _lost_before_joining(self, names: set[str], reason: str, cursor: str | None) -> None:
        assert cursor is None, "the stream's own cursor is good"
        starts = [wish.start.cursor or "" for wish in self._wishes if names <= wish.join]
        assert starts, "nobody asked for these"
        bogus = any(start in BOGUS or start.endswith(FUTURE) for start in starts)
        assert bogus or reason != "cursor", "a good cursor was refused"
        self._wishes = [wish._replace(sure=wish.sure and not names <= wish.join) for wish in self._wishes]

    def _changed(self, data: dict[str, Any], cursor: str) -> None:
        joined, left = set(data["joined"]), set(data["left"])
        assert not joined & self._channels
        assert left <= self._channels
        self._moved(cursor)
        index = self._truth.index(self._place)
        wishes = [wish for wish in self._wishes if joined <= wish.join and left <= wish.leave]
        self._wishes = self._wishes[self._wishes.index(wishes[0]) + 1 :]
        # Commands may be lost, so that it may be any of those that fit.
        untold = [self._untold(wish, joined, index) for wish in wishes]
        assert not all(untold), f"the stream was not told of the events {untold[0]}"
        self._channels = (self._channels | joined) - left
        assert set(data["channels"]) == self._channels - {BROADCAST}
        for name in left:
            self._since.pop(name, None)
            self._unsure.discard(name)
        self._since.update(dict.fromkeys(joined, index))
        self._missed_at = NOWHERE

    def _untold(self, wish: Wish, joined: set[str], until: int) -> list[str]:
        """What the stream should have been told of channels that it has joined, and was not."""
        if not wish.sure or self._forks != self._truth.forks or joined & self._truth.tampered:
            return []
        untold = []
        for at, fact in enumerate(self._truth.facts[wish.since : until], wish.since):
            due = fact.channels & joined and not fact.channels & self._channels
            due = due and not (fact.fleeting or fact.exclude & self._who or self._truth.undone(at))
            if due and fact.serial not in self._got:
                untold.append(fact.serial)
        return untold

    def ended(self, commands: Iterable[tuple[int, int]], *, joined: bool) -> None:
        """The stream was ended by one of these commands: with all events before it, and none after."""
        assert any(self._ends_at(place, joined) for place in commands), "ended too early or too late"

    def _ends_at(self, command: tuple[int, int], joined: bool) -> bool:
        index = self._truth.index(command)
        if not joined or self._at is None:
            return self._at is None or self._at <= index
        return self._at <= index and not any(map(self._due, range(self._at, index)))

    def has_got(self, serial: str) -> bool:
        """Whether the event came, live or as missed."""
        return serial in self._got

    def has_all(self) -> bool:
        """Whether nothing that is due is still to come."""
        return self._at is not None and not any(map(self._due, range(self._at, len(self._truth.facts))))
