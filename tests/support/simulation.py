"""A world of two workers on one memory broker, in which every step is taken on demand.

Hubs, readers and fetchers are the real ones, but no thread runs them: they are greenlets, and each I/O call
gives the turn back to whoever plays the scheduler. So what a test decides is all that happens, and the same
decisions give the same course of events.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from greenlet import getcurrent, greenlet

from flask_sse_push.brokers.base import BROADCAST, Bounds, Broker, History, Link, Publication, Signal
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.control import Act, Command, publication
from flask_sse_push.cursor import EARLIEST, Cursor, Lineage
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.event import Event
from flask_sse_push.group import Delivery
from flask_sse_push.http_encoding import GzipStream
from flask_sse_push.hub import Hub
from flask_sse_push.resume import Start
from flask_sse_push.shards import ShardItem
from flask_sse_push.sink import Sink
from flask_sse_push.wire import encode_body

from .judge import BOGUS, FUTURE, Judge, Truth

NAMES = ("a", "b", "c", "d")
#: Small bounds, so that trimming, splitting and catching up in pieces happen all the time.
KEPT = 5
TTL = 60.0
SETTINGS = Settings(
    history_size=KEPT,
    history_ttl=TTL,
    replica_bytes=300,
    heartbeat=1.0,
    probe=5.0,
    linger=2.0,
    batch_ms=(("d", 300),),
)
#: What a client may say of batches: nothing, that it wants none, and how long events may wait.
WAITS = (None, None, 0.0, 0.2, 2.5)
PIECE = 70
#: As much as there is.
ALL = 10**6
#: What a client may come with; most have their own cursor.
KINDS = ("own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")


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


class Copy(NamedTuple):
    """What a replica holds."""

    epoch: str
    last: int
    horizon: int
    heads: OrderedDict[str, int]
    lists: dict[str, deque[bytes]]
    lineage: Lineage


class Primary(MemoryBroker):
    """A memory broker that a replica of it may take over from, as the scripts in Redis do it."""

    lineage: Lineage = {}

    def history(self, after: Mapping[str, int], inbox: str) -> History:
        return super().history(after, inbox)._replace(lineage=self.lineage)

    def copy(self) -> Copy:
        lists = {name: entries.copy() for name, entries in self._lists.items()}
        return Copy(self._epoch, self._last, self._horizon, self._heads.copy(), lists, self.lineage)

    def promote(self, copy: Copy, epoch: str) -> None:
        """Goes on as `epoch` from the copy."""
        self._epoch, self._last, self._horizon = epoch, copy.last, copy.horizon
        self._heads, self._lists = copy.heads, copy.lists
        self.lineage = {copy.epoch: copy.last, **copy.lineage}


class Arrival(NamedTuple):
    """A client, by number, that comes to a worker, by number, with one kind of cursor."""

    client: int
    worker: int
    channels: tuple[str, ...]
    kind: str  # of KINDS
    wait: float | None = None  # what it says of batches
    gzip: bool = False


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

    def lose(self) -> None:
        """Breaks; what is in the reader's socket buffer can still be read once."""
        if self._ear and not self.deaf:
            self._arrived += self._ear.read(0)
        self.broken = self.deaf = True
        if self._ear:
            self._ear.close()

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

    def claim(self, name: str, seconds: float) -> bool:
        raise NotImplementedError

    def link(self, inbox: str) -> Link:
        self._reach()
        self.wire = Wire(self._broker, inbox)
        return self.wire

    def _reach(self) -> None:
        if not self.reachable:
            raise BrokerUnavailable("not reachable")

    def heads(self, most: int) -> dict[str, int]:
        raise NotImplementedError

    def wake(self, inbox: str) -> None:
        """The scheduler wakes who it likes."""

    def close(self) -> None:
        raise NotImplementedError


class Worker:
    """A hub whose threads take their steps one by one."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.gate = Gate(broker)
        self.hub = Hub(self.gate, SETTINGS)
        self.hub._started = True
        self._reading = greenlet(self.hub._reader.run)
        self._reading.switch()
        self._fetching: greenlet | None = None
        self._deliveries: list[Delivery | Act] = []

    def read(self, turn: Turn) -> None:
        self._reading.switch(turn)
        assert not self._reading.dead

    def fetch(self, *, lose: bool = False) -> None:
        """One step of a history call: to be sent, to be answered, to be delivered."""
        if self._fetching is None or self._fetching.dead:
            self._fetching = greenlet(self.hub._shards.all[0].fetcher._fetch)
            self._fetching.switch()
        else:
            self._fetching.switch(lose)

    def dispatch(self, count: int = ALL) -> None:
        items: list[ShardItem] = []
        while not self.hub._inbox.empty() and len(items) < count:
            items.append(self.hub._inbox.get())
        # The dispatcher delivers one batch before it takes the next.
        self.deliver()
        if items or self.hub._rooms or self.hub._fanout.waiting.is_due(CLOCK.now):
            self._deliveries = self.hub._dispatch(items)

    def deliver(self, count: int = ALL) -> None:
        now, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self.hub._deliver(now)

    def tick(self) -> None:
        self.deliver()
        self.hub._tick(CLOCK.now)

    @property
    def is_up_to_date(self) -> bool:
        """Whether it knows of the broker's last failover."""
        return self.hub._timeline._epoch == self._broker._epoch

    def reopen(self) -> None:
        """The link breaks, and the new one has so far got no further than its own inbox."""
        self.read(Turn(ALL, 0, "cut"))
        self.read(Turn())
        self.read(Turn(1, 0))

    def run(self) -> None:
        """Lets the worker do all it can do now."""
        self.read(Turn())
        while True:
            if (self._fetching is None or self._fetching.dead) and not self.hub._shards.all[
                0
            ].fetcher._queued:
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
        waiting = any(name in timeline.replicas for answer in timeline._answers for name in answer.asks)
        busy = timeline._held or timeline._joining or waiting or self.hub._shards.all[0].fetcher._queued
        fetching = self._fetching is not None and not self._fetching.dead
        linked = self.gate.wire is not None and self.gate.wire.quiet and self.hub._reader.connected
        changes = self.hub._reader._changes or self.hub._rooms
        batches = any(group.pending for group in self.hub._fanout.groups.values())
        busy_now = busy or fetching or changes
        return linked and not (batches or busy_now or self._deliveries or self.hub._inbox.qsize())


class JudgedSink(Sink):
    """Hands every frame to the judge."""

    def __init__(self, connection: str, user: str, channels: tuple[str, ...], judge: Judge) -> None:
        super().__init__(connection, user, channels)
        self.judge = judge
        self.cursors: list[str | None] = [judge.cursor]
        self.resets = 0
        self.left = self.joined = False
        self.commands: list[tuple[int, int]] = []  # places of those to end this stream
        self.when_ended: Callable[[], None] = lambda: None
        self._inflate = zlib.decompressobj(wbits=31)

    def write(self, chunk: bytes) -> None:
        if self.left:
            return
        if self.coding is not None:  # each chunk must give its events at once
            chunk = self._inflate.decompress(chunk)
            assert chunk.endswith(b"\n\n")
        for frame in chunk.split(b"\n\n")[:-1]:
            self.resets += b"event: sse.reset" in frame
            for read in self.judge.unpacked(frame):
                self.judge.read(read)
                self.cursors.append(self.judge.cursor)

    def end(self, frame: bytes) -> None:
        assert b"event: sse.close" in frame
        if not self.left:
            if self.coding is not None:
                self.coding.freeze()
                assert self._inflate.decompress(self.coding.last(frame)) == frame
                assert self._inflate.eof  # the checksum was right
            self.judge.ended(self.commands, joined=self.joined)
            self.when_ended()

    def join(self) -> None:
        self.joined = True

    def is_stuck(self, now: float) -> bool:
        return False

    def cut(self) -> None:
        raise NotImplementedError


class HasHub(Protocol):
    """A worker of either simulation."""

    hub: Hub


W = TypeVar("W", bound=HasHub)


class Visitor(Generic[W]):
    """A browser: one connection at a time, and the cursor it was left with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cursor: str | None = None
        self.worker: W | None = None
        self.joined = False
        self.connection = name  # another one each time
        self._count = 0

    def connect(
        self,
        worker: W,
        judge: Callable[[set[str]], Judge],
        channels: tuple[str, ...],
        start: Start,
        wait: float | None,
        gzip: bool,
    ) -> None:
        """Opens a stream.

        :param judge: makes the one for a stream that goes by these names.
        """
        self._count += 1
        self.connection = f"{self.name}.{self._count}"
        user = "u" + self.name
        self.sink = JudgedSink(self.connection, user, channels, judge({self.connection, user}))
        self.worker, self.joined = worker, False
        self.sink.wait = wait
        self.sink.coding = GzipStream() if gzip else None
        self.sink.when_ended = self.leave
        self.way = worker.hub.way((*channels, BROADCAST), start)
        worker.hub.open(self.sink)

    def follow(self) -> bool:
        """Takes one piece of what was missed; returns whether there was one."""
        if self.worker is None or self.joined:
            return False
        frames = self.worker.hub.follow(self.sink, self.way, 0)
        self.joined = frames is None
        if frames:
            self.sink.write(self.sink.encoded(frames))
        return bool(frames)

    def leave(self, unread: int = 0) -> None:
        """Goes, without having read the last `unread` frames."""
        if self.worker is not None:
            self.sink.left = True
            self.worker.hub.leave(self.sink)
            self.cursor = self.sink.cursors[max(0, len(self.sink.cursors) - 1 - unread)]
            self.worker = None


class Client(Visitor[Worker]):
    """A visitor of workers with one shard."""

    def open(
        self,
        worker: Worker,
        truth: Truth,
        channels: tuple[str, ...],
        start: Start,
        wait: float | None,
        gzip: bool,
    ) -> None:
        def judge(who: set[str]) -> Judge:
            return Judge(truth, who, channels, start, is_behind=lambda: not worker.is_up_to_date)

        self.connect(worker, judge, channels, start, wait, gzip)


class World:
    """Everything, and what can happen to it."""

    def __init__(self) -> None:
        CLOCK.reset()
        self.broker = Primary(Bounds(KEPT, TTL))
        self.broker._epoch = "e0"
        self.truth = Truth(self.broker)
        self.workers = [Worker(self.broker) for _ in range(2)]
        self.clients = [Client(f"k{n}") for n in range(4)]
        self._serial = 0
        self.copy()

    def populate(self) -> None:
        """Streams that follow already, so that trouble meets something."""
        for client, worker, channels in (
            (0, 0, ("a", "b")),
            (1, 0, ("b", "c", "d")),
            (2, 1, ("a", "b", "c")),
        ):
            self.open(Arrival(client, worker, channels, "live"))
        self.settle()

    def publish(self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]) -> None:
        publications = []
        for channels, exclude, ttl in events:
            self._serial += 1
            body = encode_body(Event(str(self._serial)))
            connections = {client.name: client.connection for client in self.clients}
            excluded = tuple(connections.get(name, name) for name in exclude)
            publications.append(Publication(body, tuple(channels), excluded, ttl))
        first = self._serial - len(publications) + 1
        for at, cursor in enumerate(self.broker.publish(publications)):
            self.truth.note(cursor, str(first + at), publications[at])

    def disconnect(self, client: int) -> None:
        """Somebody has the stream of a client ended."""
        who = self.clients[client]
        command = Command("disconnect", {"connection": who.connection, "reconnect": True})
        cursor = self.broker.publish([publication(command)])[0]
        if who.worker:
            who.sink.commands.append(self.truth.place(str(cursor)))

    def change(self, client: int, join: Sequence[str], leave: Sequence[str], kind: str) -> None:
        """Somebody has the stream of a client join and leave channels."""
        who = self.clients[client]
        if who.worker is None:
            return
        start = self._start(who, kind, join)
        arguments: dict[str, Any] = {"connection": who.connection, "join": join, "leave": leave}
        arguments |= {"since": start.cursor, "last": start.newest}
        self.broker.publish([publication(Command("channels", arguments))])
        who.sink.judge.wishes(join, leave, start)

    def latest(self) -> str:
        """What the last publish returned: a cursor that workers may not have reached."""
        if not self.truth.facts or self.truth.facts[-1].place[0] != len(self.truth._epochs) - 1:
            return str(Cursor(self.broker._epoch, 0))
        return str(Cursor(self.broker._epoch, self.truth.facts[-1].place[1]))

    def open(self, arrival: Arrival) -> None:
        """A client comes, or comes again."""
        who = self.clients[arrival.client]
        who.leave()
        start = self._start(who, arrival.kind, arrival.channels)
        worker = self.workers[arrival.worker]
        who.open(worker, self.truth, arrival.channels, start, arrival.wait, arrival.gzip)

    def _start(self, who: Client, kind: str, channels: Sequence[str]) -> Start:
        cursor = who.sink.judge.cursor if who.worker else who.cursor
        return {
            "own": Start(cursor),
            "latest": Start(self.latest()),
            "live": Start(),
            "earliest": Start(EARLIEST),
            "newest": Start(newest=len(channels)),
            "bogus": Start(BOGUS[1]),
            "future": Start(self.broker._epoch + FUTURE),
        }[kind]

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
        self.broker.lineage = {}
        self.truth.new_epoch(epoch)
        self.truth.tampered.clear()
        self.copy()
        if clock_back:
            CLOCK.micros -= 500

    def copy(self) -> None:
        """The replica takes over all that the primary has."""
        self._copy = self.broker.copy()

    def fail_over(self) -> None:
        """The replica is promoted: what the primary did since the last copy never was. All links break."""
        copy = self._copy
        epoch = f"e{len(self.truth._epochs)}"
        self.truth.fork(epoch, copy.epoch, copy.last)
        for worker in self.workers:
            if worker.gate.wire:
                worker.gate.wire.lose()
        self.broker.promote(copy, epoch)
        self.copy()

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
                    CLOCK.now += max(wait for wait in WAITS if wait)
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
