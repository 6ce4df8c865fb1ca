"""The delivery promise against a model: what may happen, happens in any order, and nothing is lost.

Two workers stand on one memory broker. Their hubs, readers and fetchers are the real ones, but no thread
runs them: each I/O call is a place where the scheduler, and so hypothesis, decides what happens next. Links
break and lose what was under way, replies come late or never, history is trimmed, the broker forgets all.
A judge reads every frame of every client.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flask_sse_push import fetcher, hub, reader, resume
from flask_sse_push.brokers import memory
from flask_sse_push.brokers.base import BROADCAST, Bounds, Broker, Link, Publication, Signal
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.cursor import EARLIEST, LOST, Cursor, parse
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.event import Event
from flask_sse_push.group import Delivery
from flask_sse_push.hub import Hub
from flask_sse_push.resume import Resume, Start
from flask_sse_push.sink import Sink
from flask_sse_push.timeline import Item
from flask_sse_push.wire import encode_body

NAMES = ("a", "b", "c", "d")
#: Small bounds, so that trimming, splitting and catching up in pieces happen all the time.
KEPT = 5
TTL = 60.0
SETTINGS = Settings(
    history_size=KEPT, history_ttl=TTL, replica_bytes=300, heartbeat=1.0, probe=5.0, linger=2.0
)
PIECE = 70
ALL = 10**6
#: Cursors that nobody was given.
BOGUS = (LOST, "nonsense")
FUTURE = "-zzzzzzzzz"


class Clock:
    """Stands where the package looks for the `time` module."""

    def __init__(self) -> None:
        self.micros = 0
        self.now = 0.0
        self.reset()

    def reset(self) -> None:
        self.micros = 1_000_000_000
        self.now = 1000.0

    def time_ns(self) -> int:
        return self.micros * 1000

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if getcurrent().parent is not None:
            pause()


CLOCK = Clock()


def pause(*news: Any) -> Any:
    """Gives the turn back to the scheduler; returns what it decided."""
    scheduler = getcurrent().parent
    assert scheduler is not None
    return scheduler.switch(*news)


# -- the truth, and who compares with it -----------------------------------------------------------------


class Fact(NamedTuple):
    """An event that was published."""

    serial: str
    place: tuple[int, int]  # number of the epoch, id
    channels: frozenset[str]
    exclude: frozenset[str]
    fleeting: bool  # with a time to live: it need not be replayed


class Truth:
    """All that was published, in order, and what the broker still keeps of it."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.facts: list[Fact] = []
        self._places: list[tuple[int, int]] = []
        self._epochs = {broker._epoch: 0}
        self.tampered: set[str] = set()  # channels whose lists were cut from outside

    def note(self, cursor: Cursor, serial: str, publication: Publication) -> None:
        channels, exclude = frozenset(publication.channels), frozenset(publication.exclude)
        place = (self._epochs[cursor.epoch], cursor.id)
        assert not self._places or place > self._places[-1], "ids do not increase"
        self.facts.append(Fact(serial, place, channels, exclude, publication.ttl is not None))
        self._places.append(place)

    def new_epoch(self, epoch: str) -> None:
        self._epochs[epoch] = len(self._epochs)

    def place(self, text: str) -> tuple[int, int]:
        """What a cursor stands for; it must be one that somebody gave."""
        cursor = parse(text)
        assert cursor is not None, f"{text!r} is no cursor"
        assert cursor.epoch in self._epochs, f"{text!r} has an epoch that never was"
        if cursor.epoch == self._broker._epoch:
            assert cursor.id <= self._broker._last, f"{text!r} is a position of the future"
        return self._epochs[cursor.epoch], cursor.id

    def index(self, place: tuple[int, int]) -> int:
        """How many events stand at or before `place`."""
        return bisect_right(self._places, place)

    def kept(self, name: str) -> int:
        """The index from which on everything of the channel is still with the broker."""
        epoch = len(self._epochs) - 1
        ids = {int(stored.split(b" ")[1]) for stored in self._broker._lists.get(name, ())}
        for at in range(len(self.facts) - 1, -1, -1):
            fact = self.facts[at]
            if name in fact.channels and (fact.place[0] != epoch or fact.place[1] not in ids):
                return at + 1
        return 0

    def kept_since(self, names: Iterable[str], at: int) -> dict[str, int]:
        """For each channel the index from which on its events can be had; not before `at`."""
        end = len(self.facts)
        return {name: end if name in self.tampered else max(at, self.kept(name)) for name in names}

    def proves(self, name: str, place: tuple[int, int]) -> bool:
        """Whether the broker can show that nothing after `place` is gone."""
        if place[0] != len(self._epochs) - 1:
            return False
        limit = self._broker._horizon
        if kept := self._broker._lists.get(name):
            limit = min(limit, int(kept[0].split(b" ")[1]) - 1)
        index = self.index(place)
        if index and len(self.facts[index - 1].channels) > 1:
            index -= 1  # the worker may know the event from another channel, and not from this one
        return place[1] >= limit and self.kept(name) <= index


class Judge:
    """Reads the frames of one connection and fails at the first one that breaks the promise."""

    def __init__(self, truth: Truth, who: set[str], channels: Iterable[str], start: Start) -> None:
        self._truth = truth
        self._who = who
        self._channels = {*channels, BROADCAST}
        self._start = start
        given = start.cursor or ""
        self._bogus = given in BOGUS or given.endswith(FUTURE)
        self._since: dict[str, int] = {}  # events of a channel are due from this index on
        self._unsure: set[str] = set()  # channels of which it is not known exactly from where they go on
        self._at: int | None = None  # everything before this index was settled
        self._place = (0, 0)
        self.cursor = start.cursor
        self.open = False

    def read(self, frame: bytes) -> None:
        fields: dict[str, str] = {}
        for line in frame.decode().split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        kind, data = fields.get("event", "message"), fields["data"]
        cursor = fields.get("id")
        if kind == "sse.open":
            self._opened(json.loads(data), cursor)
        elif kind == "sse.reset":
            self._lost(json.loads(data), cursor)
        elif kind == "sse.heartbeat":
            assert cursor is not None
            self._moved(cursor)
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
        assert names <= self._channels
        if data["reason"] == "history":
            for name in names - self._truth.tampered - self._unsure:
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
        return wanted and not fact.fleeting and not fact.exclude & self._who

    def has_all(self) -> bool:
        """Whether nothing that is due is still to come."""
        return self._at is not None and not any(map(self._due, range(self._at, len(self._truth.facts))))


# -- a broker whose every step is scheduled --------------------------------------------------------------


class Turn(NamedTuple):
    """What the scheduler lets a reading worker have."""

    commands: int = ALL  # how many of those sent the broker gets
    signals: int = ALL  # how many of those that arrived are in this read
    end: str = ""  # "cut": the link breaks after this; "deaf": nothing comes any more, and no error


class Wire(Link):
    """A link to the memory broker that carries commands and signals when the scheduler says so."""

    def __init__(self, broker: MemoryBroker, inbox: str) -> None:
        self._broker = broker
        self._inbox = inbox
        self._ear: Link | None = None
        self._sent: list[tuple[str, list[str]]] = [("open", [])]
        self._arrived: list[Signal] = []
        self.broken = self.deaf = False

    def subscribe(self, channels: Sequence[str]) -> None:
        self._send("subscribe", channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._send("unsubscribe", channels)

    def _send(self, command: str, channels: Sequence[str]) -> None:
        if self.broken:
            raise BrokerUnavailable("cut")
        self._sent.append((command, list(channels)))

    def read(self, timeout: float) -> list[Signal]:
        turn: Turn = pause()
        self._carry(turn.commands)
        signals, self._arrived = self._arrived[: turn.signals], self._arrived[turn.signals :]
        if turn.end:
            self.broken, self.deaf = self.broken or turn.end == "cut", True
            if self._ear:
                self._ear.close()
        if self.broken and not signals:
            raise BrokerUnavailable("cut")
        if self.deaf:
            self._arrived = []
        return signals

    def _carry(self, count: int) -> None:
        if self.deaf:
            return
        now, self._sent = self._sent[:count], self._sent[count:]
        for command, channels in now:
            if command == "open":
                self._ear = self._broker.link(self._inbox)
            else:
                assert self._ear is not None
                getattr(self._ear, command)(channels)
        if self._ear:
            self._arrived += self._ear.read(0)

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way."""
        if self._ear and not self.deaf:
            self._arrived += self._ear.read(0)
        return not (self.deaf or self._sent or self._arrived)

    def close(self) -> None:
        self.broken = self.deaf = True
        if self._ear:
            self._ear.close()


class Gate(Broker):
    """The memory broker as one worker reaches it, or does not."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.reachable = True
        self.wire: Wire | None = None

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        raise NotImplementedError

    def history(self, after: Mapping[str, int], inbox: str) -> Any:
        pause()
        self._reach()
        answer = self._broker.history(after, inbox)
        lost = pause()
        if lost:
            raise BrokerUnavailable("the reply was lost")
        return answer

    def link(self, inbox: str) -> Link:
        self._reach()
        self.wire = Wire(self._broker, inbox)
        return self.wire

    def _reach(self) -> None:
        if not self.reachable:
            raise BrokerUnavailable("not reachable")

    def wake(self, inbox: str) -> None:
        """The scheduler wakes who it likes."""

    def close(self) -> None:
        raise NotImplementedError


class Worker:
    """A hub whose threads take their steps one by one."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.gate = Gate(broker)
        self.hub = Hub(self.gate, SETTINGS)
        self.hub._started = True
        self._reading = greenlet(self.hub._reader.run)
        self._reading.switch()
        self._fetching: greenlet | None = None
        self._deliveries: list[Delivery] = []

    def read(self, turn: Turn) -> None:
        self._reading.switch(turn)
        assert not self._reading.dead

    def fetch(self, *, lose: bool = False) -> None:
        """One step of a history call: to be sent, to be answered, to be delivered."""
        if self._fetching is None or self._fetching.dead:
            self._fetching = greenlet(self.hub._fetcher._fetch)
            self._fetching.switch()
        else:
            self._fetching.switch(lose)

    def dispatch(self, count: int = ALL) -> None:
        items: list[Item] = []
        while not self.hub._inbox.empty() and len(items) < count:
            items.append(self.hub._inbox.get())
        # The dispatcher delivers one batch before it takes the next.
        self.deliver()
        if items:
            self._deliveries = self.hub._dispatch(items)

    def deliver(self, count: int = ALL) -> None:
        now, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self.hub._deliver(now)

    def tick(self) -> None:
        self.deliver()
        self.hub._tick(CLOCK.now)

    def reopen(self) -> None:
        """The link breaks, and the new one has so far got no further than its own inbox."""
        self.read(Turn(ALL, 0, "cut"))
        self.read(Turn())
        self.read(Turn(1, 0))

    def run(self) -> None:
        """Lets the worker do all it can do now."""
        self.read(Turn())
        while True:
            if (self._fetching is None or self._fetching.dead) and not self.hub._fetcher._queued:
                break
            self.fetch()
            if not self.gate.reachable:
                break
        self.read(Turn())
        self.dispatch()
        self.deliver()

    def probe(self) -> None:
        self.fetch()
        while self._fetching and not self._fetching.dead:
            self.fetch()

    @property
    def quiet(self) -> bool:
        timeline = self.hub._timeline
        waiting = any(answer.asks for answer in timeline._answers)
        busy = timeline._held or timeline._joining or waiting or self.hub._fetcher._queued
        fetching = self._fetching is not None and not self._fetching.dead
        linked = self.gate.wire is not None and self.gate.wire.quiet and self.hub._reader.connected
        changes = self.hub._reader._changes
        return linked and not (busy or fetching or changes or self._deliveries or self.hub._inbox.qsize())


class TestSink(Sink):
    """Hands every frame to the judge."""

    __test__ = False

    def __init__(self, connection: str, channels: tuple[str, ...], judge: Judge) -> None:
        super().__init__(connection, "u" + connection, channels)
        self.judge = judge
        self.cursors: list[str | None] = [judge.cursor]
        self.left = False

    def write(self, chunk: bytes) -> None:
        if self.left:
            return
        for frame in chunk.split(b"\n\n")[:-1]:
            self.judge.read(frame)
            self.cursors.append(self.judge.cursor)

    def end(self, frame: bytes) -> None:
        raise NotImplementedError

    def is_stuck(self, now: float) -> bool:
        return False

    def cut(self) -> None:
        raise NotImplementedError


class Client:
    """A browser: one connection at a time, and the cursor it was left with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cursor: str | None = None
        self.worker: Worker | None = None
        self.joined = False

    def open(self, worker: Worker, truth: Truth, channels: tuple[str, ...], start: Start) -> None:
        judge = Judge(truth, {self.name, "u" + self.name}, channels, start)
        self.worker = worker
        self.joined = False
        self.sink = TestSink(self.name, channels, judge)
        self.resume = Resume((*channels, BROADCAST), start)
        worker.hub.open(self.sink)

    def follow(self) -> bool:
        """Takes one piece of what was missed; returns whether there was one."""
        if self.worker is None or self.joined:
            return False
        frames = self.worker.hub.follow(self.sink, self.resume, 0)
        self.joined = frames is None
        if frames:
            self.sink.write(frames)
        return bool(frames)

    def leave(self, unread: int = 0) -> None:
        """Goes, without having read the last `unread` frames."""
        if self.worker is not None:
            self.sink.left = True
            self.worker.hub.leave(self.sink)
            self.cursor = self.sink.cursors[max(0, len(self.sink.cursors) - 1 - unread)]
            self.worker = None


class World:
    """Everything, and what can happen to it."""

    def __init__(self) -> None:
        CLOCK.reset()
        self.broker = MemoryBroker(Bounds(KEPT, TTL))
        self.broker._epoch = "e0"
        self.truth = Truth(self.broker)
        self.workers = [Worker(self.broker) for _ in range(2)]
        self.clients = [Client(f"k{n}") for n in range(4)]
        self._serial = 0

    def populate(self) -> None:
        """Streams that follow already, so that trouble meets something."""
        for client, worker, channels in (
            (0, 0, ("a", "b")),
            (1, 0, ("b", "c", "d")),
            (2, 1, ("a", "b", "c")),
        ):
            self.open(client, worker, channels, "live")
        self.settle()

    def publish(self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]) -> None:
        publications = []
        for channels, exclude, ttl in events:
            self._serial += 1
            body = encode_body(Event(str(self._serial)))
            publications.append(Publication(body, tuple(channels), tuple(exclude), ttl))
        first = self._serial - len(publications) + 1
        for at, cursor in enumerate(self.broker.publish(publications)):
            self.truth.note(cursor, str(first + at), publications[at])

    def latest(self) -> str:
        """What the last publish returned: a cursor that workers may not have reached."""
        if not self.truth.facts or self.truth.facts[-1].place[0] != len(self.truth._epochs) - 1:
            return str(Cursor(self.broker._epoch, 0))
        return str(Cursor(self.broker._epoch, self.truth.facts[-1].place[1]))

    def open(self, client: int, worker: int, channels: tuple[str, ...], kind: str) -> None:
        """A client comes, or comes again, with one kind of cursor."""
        who = self.clients[client]
        who.leave()
        start = {
            "own": Start(who.cursor),
            "latest": Start(self.latest()),
            "live": Start(),
            "earliest": Start(EARLIEST),
            "newest": Start(newest=len(channels)),
            "bogus": Start("nonsense"),
            "future": Start(self.broker._epoch + FUTURE),
        }[kind]
        who.open(self.workers[worker], self.truth, channels, start)

    def follow(self, client: int, pieces: int) -> None:
        for _ in range(pieces):
            if not self.clients[client].follow():
                break

    def run_all(self) -> None:
        for worker in self.workers:
            worker.run()
        for client in self.clients:
            client.follow()

    def tick(self, worker: int, seconds: float) -> None:
        CLOCK.now += seconds
        self.workers[worker].tick()

    def forget_all(self, clock_back: bool) -> None:
        """What FLUSHALL does: links stay."""
        epoch = f"e{len(self.truth._epochs)}"
        self.broker._heads.clear()
        self.broker._lists.clear()
        self.broker._epoch, self.broker._last, self.broker._horizon = epoch, 0, 0
        self.truth.new_epoch(epoch)
        self.truth.tampered.clear()
        if clock_back:
            CLOCK.micros -= 500

    def tamper(self, name: str, how: str) -> None:
        """Takes entries out of a list behind the broker's back."""
        kept = self.broker._lists.get(name)
        if kept:
            self.truth.tampered.add(name)
            if how == "all":
                kept.clear()
            elif how == "newest":
                kept.pop()
            else:
                kept.popleft()

    def settle(self) -> None:
        """Lets everything come to rest; then every client must have all that it is entitled to."""
        for worker in self.workers:
            worker.gate.reachable = True
        for _ in range(60):
            for worker in self.workers:
                if worker.gate.wire and worker.gate.wire.deaf:
                    CLOCK.now += 3 * SETTINGS.probe
                if not worker.quiet:
                    worker.probe()
                worker.run()
            moved = [client.follow() for client in self.clients]
            waiting = any(client.worker and not client.joined for client in self.clients)
            if not any(moved) and not waiting and all(worker.quiet for worker in self.workers):
                break
        else:
            raise AssertionError("it never comes to rest")
        for worker in self.workers:
            worker.probe()
            worker.run()
        CLOCK.now += 1.5 * SETTINGS.heartbeat
        for worker in self.workers:
            worker.tick()
        for client in self.clients:
            if client.worker:
                assert client.sink.judge.has_all(), f"{client.name} waits for an event in vain"


# -- who decides -----------------------------------------------------------------------------------------

Strategy = st.SearchStrategy[Any]

channel_sets: Strategy = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple)
some_events: Strategy = st.lists(
    st.tuples(
        channel_sets | st.just((BROADCAST,)),
        st.just(()) | st.sampled_from([("k0",), ("uk1",)]),
        st.sampled_from([None, None, None, 0.0, 1.0]),
    ),
    min_size=1,
    max_size=3,
)
clients: Strategy = st.integers(0, 3)
workers: Strategy = st.integers(0, 1)
few: Strategy = st.sampled_from([ALL, 0, 1, 2])
KINDS = ("own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")
starts: Strategy = st.sampled_from(KINDS)


class PromiseMachine(RuleBasedStateMachine):
    """Hypothesis as the scheduler: it finds an order of things that breaks the promise, and shortens it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(settled=st.booleans())
    def begin(self, settled: bool) -> None:
        if settled:
            self.world.populate()

    @rule(events=some_events)
    def publish(self, events: list[tuple[tuple[str, ...], tuple[str, ...], float | None]]) -> None:
        self.world.publish(events)

    @rule(client=clients, worker=workers, channels=channel_sets, kind=starts)
    def open(self, client: int, worker: int, channels: tuple[str, ...], kind: str) -> None:
        self.world.open(client, worker, channels, kind)

    @rule(client=clients, pieces=st.sampled_from([1, 9]))
    def follow(self, client: int, pieces: int) -> None:
        self.world.follow(client, pieces)

    @rule(client=clients, unread=st.sampled_from([0, 1, 3]))
    def leave(self, client: int, unread: int) -> None:
        self.world.clients[client].leave(unread)

    @rule(worker=workers, commands=few, signals=few)
    def read(self, worker: int, commands: int, signals: int) -> None:
        self.world.workers[worker].read(Turn(commands, signals))

    @rule(worker=workers, signals=few, end=st.sampled_from(["cut", "deaf"]))
    def lose_the_link(self, worker: int, signals: int, end: str) -> None:
        self.world.workers[worker].read(Turn(ALL, signals, end))

    @rule(worker=workers)
    def reopen(self, worker: int) -> None:
        self.world.workers[worker].reopen()

    @rule(worker=workers, lose=st.sampled_from([False, False, False, True]))
    def fetch(self, worker: int, lose: bool) -> None:
        self.world.workers[worker].fetch(lose=lose)

    @rule(worker=workers, items=few)
    def dispatch(self, worker: int, items: int) -> None:
        self.world.workers[worker].dispatch(items)

    @rule(worker=workers)
    def deliver(self, worker: int) -> None:
        self.world.workers[worker].deliver(1)

    @rule(worker=workers)
    def run(self, worker: int) -> None:
        self.world.workers[worker].run()

    @rule()
    def run_all(self) -> None:
        self.world.run_all()

    @rule(worker=workers)
    def probe(self, worker: int) -> None:
        self.world.workers[worker].probe()

    @rule(worker=workers, reachable=st.booleans())
    def reach(self, worker: int, reachable: bool) -> None:
        self.world.workers[worker].gate.reachable = reachable

    @rule(worker=workers, seconds=st.sampled_from([0.5, 1.5, 3.0, 12.0]))
    def tick(self, worker: int, seconds: float) -> None:
        self.world.tick(worker, seconds)

    @rule(micros=st.sampled_from([1, 100, 20_000_000, 70_000_000]))
    def time_passes(self, micros: int) -> None:
        CLOCK.micros += micros

    @rule(clock_back=st.booleans())
    def forget_all(self, clock_back: bool) -> None:
        self.world.forget_all(clock_back)

    @rule(name=st.sampled_from((*NAMES, BROADCAST)), how=st.sampled_from(["all", "newest", "oldest"]))
    def tamper(self, name: str, how: str) -> None:
        self.world.tamper(name, how)

    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        self.world.settle()


class Walk:
    """The same steps by plain dice, which are quicker.

    Each walk has a temper of its own: what is rare in one is frequent in another.
    """

    def __init__(self, chance: random.Random) -> None:
        self.world = World()
        self._chance = chance
        self._pick = chance.choice
        self._parts = [ALL] * chance.randrange(4) + [0, 1, 2]

    #: What may happen, and how often on the average.
    STEPS: Mapping[str, float] = {
        "publish": 18,
        "open": 8,
        "follow": 8,
        "leave": 4,
        "read": 11,
        "fetch": 11,
        "dispatch": 9,
        "deliver": 3,
        "run": 8,
        "run_all": 3,
        "probe": 3,
        "lose_the_link": 1.5,
        "reopen": 1.5,
        "reach": 2,
        "tick": 3,
        "time_passes": 5,
        "forget_all": 0.5,
        "tamper": 0.5,
        "settle": 1,
    }

    def go(self, steps: int) -> None:
        if self._chance.random() < 0.5:
            self.world.populate()
        weights = [weight * 10 ** self._chance.uniform(-0.7, 0.7) for weight in self.STEPS.values()]
        for name in self._chance.choices(list(self.STEPS), weights, k=steps):
            getattr(self, name)()
        self.world.settle()

    def worker(self) -> Worker:
        return self._pick(self.world.workers)

    def client(self) -> int:
        return self._chance.randrange(4)

    def publish(self) -> None:
        self.world.publish([self.event() for _ in range(self._pick([1, 1, 2, 3]))])

    def event(self) -> tuple[list[str], list[str], float | None]:
        chance = self._chance
        names = chance.sample(NAMES, self._pick([1, 1, 2, 3])) if chance.random() < 0.9 else [BROADCAST]
        exclude = [f"k{self.client()}"] if chance.random() < 0.1 else []
        return names, exclude, self._pick([0.0, 1.0]) if chance.random() < 0.05 else None

    def open(self) -> None:
        names = tuple(self._chance.sample(NAMES, self._pick([1, 2, 2, 3])))
        self.world.open(self.client(), self._chance.randrange(2), names, self._pick(KINDS))

    def follow(self) -> None:
        self.world.follow(self.client(), self._pick([1, 9]))

    def leave(self) -> None:
        self.world.clients[self.client()].leave(self._pick([0, 0, 1, 3]))

    def read(self) -> None:
        self.worker().read(Turn(self._pick(self._parts), self._pick(self._parts)))

    def fetch(self) -> None:
        self.worker().fetch(lose=self._chance.random() < 0.15)

    def dispatch(self) -> None:
        self.worker().dispatch(self._pick([1, 2, ALL]))

    def deliver(self) -> None:
        self.worker().deliver(1)

    def run(self) -> None:
        self.worker().run()

    def run_all(self) -> None:
        self.world.run_all()

    def probe(self) -> None:
        self.worker().probe()

    def lose_the_link(self) -> None:
        self.worker().read(Turn(ALL, self._pick([0, 1, 2, ALL]), self._pick(["cut", "cut", "deaf"])))

    def reopen(self) -> None:
        self.worker().reopen()

    def reach(self) -> None:
        self.worker().gate.reachable = self._chance.random() < 0.7

    def tick(self) -> None:
        self.world.tick(self._chance.randrange(2), self._pick([0.5, 1.5, 3.0, 12.0]))

    def time_passes(self) -> None:
        CLOCK.micros += self._pick([1, 3, 100, 1000, 20_000_000, 70_000_000])

    def forget_all(self) -> None:
        self.world.forget_all(self._chance.random() < 0.5)

    def tamper(self) -> None:
        self.world.tamper(self._pick((*NAMES, BROADCAST)), self._pick(["all", "newest", "oldest"]))

    def settle(self) -> None:
        self.world.settle()


@pytest.fixture(autouse=True)
def _simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, hub, reader, fetcher):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(resume, "MAX_PIECE", PIECE)
    for module in (fetcher, reader):
        monkeypatch.setattr(module, "MAX_AT_ONCE", 2)


def test_hypothesis_finds_no_way_to_break_the_promise() -> None:
    often = settings(
        max_examples=600,
        stateful_step_count=50,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(PromiseMachine, settings=often)


@pytest.mark.parametrize("steps", [50, 200])
def test_random_walks_find_no_way_to_break_the_promise(steps: int) -> None:
    first = random.randrange(10**9)
    for seed in range(first, first + 60_000 // steps):
        try:
            Walk(random.Random(seed)).go(steps)
        except AssertionError as error:
            raise AssertionError(
                f"Walk(random.Random({seed})).go({steps}) broke the promise: {error}"
            ) from error
