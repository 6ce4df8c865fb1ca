"""The world of `simulation` with two shards: a broker, a link and a history call for each, all on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from greenlet import greenlet

from flask_sse_push import vector
from flask_sse_push.brokers.base import Bounds, Broker, History, Link, Publication
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.control import Act, Command, publication
from flask_sse_push.cursor import EARLIEST, Cursor
from flask_sse_push.event import Event
from flask_sse_push.group import Delivery
from flask_sse_push.hub import Hub
from flask_sse_push.resume import Start
from flask_sse_push.shards import Shard, ShardItem
from flask_sse_push.wire import encode_body

from .judge import BOGUS, FUTURE
from .simulation import ALL, CLOCK, KEPT, SETTINGS, TTL, WAITS, Copy, Gate, Primary, Turn, Visitor
from .split_judge import COUNT, LegTruth, SplitJudge


def epoch(shard: int, number: int) -> str:
    return f"{shard}{COUNT}e{number:03d}"


class NotedPrimary(Primary):
    """One shard: what it stores is noted."""

    def __init__(self, shard: int) -> None:
        super().__init__(Bounds(KEPT, TTL))
        self._epoch = epoch(shard, 0)
        self.truth = LegTruth(self)
        self.kept_copy = self.copy()

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        cursors = super().publish(publications, once)
        for each, cursor in zip(publications, cursors, strict=True):
            if not each.channels[0].startswith("!"):
                serial = each.body.split(b"data: ")[1].split(b"\n")[0].decode()
                self.truth.shared |= {serial} if len(each.channels) > 1 else set()
                self.truth.note(cursor, serial, each._replace(channels=each.lists))
        return cursors


class Gates(Broker):
    """All shards as one worker reaches them."""

    def __init__(self, brokers: Sequence[NotedPrimary]) -> None:
        self.gates = [Gate(each) for each in brokers]

    @property
    def shards(self) -> Sequence[Broker]:
        return self.gates

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        raise NotImplementedError

    def history(self, after: Any, inbox: str) -> History:
        raise NotImplementedError

    def claim(self, name: str, seconds: float) -> bool:
        raise NotImplementedError

    def link(self, inbox: str) -> Link:
        raise NotImplementedError

    def heads(self, most: int) -> dict[str, int]:
        raise NotImplementedError

    def wake(self, inbox: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Ear:
    """The threads of one shard in one worker."""

    def __init__(self, shard: Shard, gate: Gate) -> None:
        self.shard = shard
        self.gate = gate
        self._reading = greenlet(shard.reader.run)
        self._reading.switch()
        self._fetching: greenlet | None = None

    def read(self, turn: Turn) -> None:
        self._reading.switch(turn)
        assert not self._reading.dead

    @property
    def fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.dead

    def fetch(self, *, lose: bool = False) -> None:
        if self._fetching is None or self._fetching.dead:
            self._fetching = greenlet(self.shard.fetcher._fetch)
            self._fetching.switch()
        else:
            self._fetching.switch(lose)

    def reopen(self) -> None:
        self.read(Turn(ALL, 0, "cut"))
        self.read(Turn())
        self.read(Turn(1, 0))

    def fetch_all(self) -> None:
        while self.fetching or self.shard.fetcher._queued:
            self.fetch()
            if not self.gate.reachable:
                break

    def probe(self) -> None:
        self.fetch()
        while self.fetching:
            self.fetch()

    @property
    def quiet(self) -> bool:
        timeline = self.shard.timeline
        waiting = any(name in timeline.replicas for answer in timeline._answers for name in answer.asks)
        busy = timeline._held or timeline._joining or waiting or self.shard.fetcher._queued
        linked = self.gate.wire is not None and self.gate.wire.quiet and self.shard.reader.connected
        return linked and not (busy or self.fetching or self.shard.reader._changes)


class SplitWorker:
    """A hub over all shards whose threads take their steps one by one."""

    def __init__(self, brokers: Sequence[NotedPrimary]) -> None:
        self._brokers = brokers
        gates = Gates(brokers)
        self.hub = Hub(gates, SETTINGS)
        self.hub._started = True
        self.ears = [Ear(shard, gates.gates[shard.number]) for shard in self.hub._shards.all]
        self._deliveries: list[Delivery | Act] = []

    def dispatch(self, count: int = ALL) -> None:
        items: list[ShardItem] = []
        while not self.hub._inbox.empty() and len(items) < count:
            items.append(self.hub._inbox.get())
        self.deliver()
        if items or self.hub._rooms or self.hub._fanout.waiting.is_due(CLOCK.now):
            self._deliveries = self.hub._dispatch(items)

    def deliver(self, count: int = ALL) -> None:
        now, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self.hub._deliver(now)

    def tick(self) -> None:
        self.deliver()
        self.hub._tick(CLOCK.now)

    def run(self) -> None:
        for ear in self.ears:
            ear.read(Turn())
            ear.fetch_all()
            ear.read(Turn())
        self.dispatch()
        self.deliver()

    def is_behind(self, shard: int) -> bool:
        """Whether it has not heard of a shard's last failover."""
        return self.ears[shard].shard.timeline._epoch != self._brokers[shard]._epoch

    @property
    def quiet(self) -> bool:
        batches = any(group.pending for group in self.hub._fanout.groups.values())
        busy = batches or self._deliveries or self.hub._inbox.qsize() or self.hub._rooms
        return not busy and all(ear.quiet for ear in self.ears)


class SplitClient(Visitor[SplitWorker]):
    """A visitor of workers with several shards."""

    def open(
        self,
        world: SplitWorld,
        worker: SplitWorker,
        channels: tuple[str, ...],
        start: Start,
        wait: float | None,
        gzip: bool,
    ) -> None:
        def judge(who: set[str]) -> SplitJudge:
            return SplitJudge(world, who, channels, start, worker.is_behind)

        self.connect(worker, judge, channels, start, wait, gzip)


class SplitWorld:
    """Everything, and what can happen to it."""

    def __init__(self) -> None:
        CLOCK.reset()
        self.brokers = [NotedPrimary(k) for k in range(COUNT)]
        self._sharded = ShardedBroker([Late(self, k) for k in range(COUNT)])
        self.late: list[deque[Callable[[], object]]] = [deque() for _ in range(COUNT)]
        self.workers = [SplitWorker(self.brokers) for _ in range(2)]
        self.clients = [SplitClient(f"k{n}") for n in range(4)]
        self.channels: dict[str, tuple[str, ...]] = {}
        self._serial = 0
        self.holding = False  # whether the later shards of a publish wait

    def populate(self) -> None:
        for client, worker, channels in ((0, 0, ("a", "d")), (1, 0, ("b", "d")), (2, 1, ("a", "b", "d"))):
            self.open(client, worker, channels, "live")
        self.settle()

    def publish(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]], *, hold: bool = False
    ) -> None:
        publications = []
        for channels, exclude, ttl in events:
            self._serial += 1
            body = encode_body(Event(str(self._serial)))
            connections = {client.name: client.connection for client in self.clients}
            excluded = tuple(connections.get(name, name) for name in exclude)
            publications.append(Publication(body, tuple(channels), excluded, ttl))
            self.channels[str(self._serial)] = publications[-1].channels
        self.holding = hold
        self._sharded.publish(publications)
        self.holding = False

    def arrive(self) -> None:
        """What was held up on its way to the later shards comes."""
        for waiting in self.late:
            while waiting:
                waiting.popleft()()

    def disconnect(self, client: int) -> None:
        who = self.clients[client]
        command = Command("disconnect", {"connection": who.connection, "reconnect": True})
        cursor = self.brokers[0].publish([publication(command)])[0]
        if who.worker:
            who.sink.commands.append(self.brokers[0].truth.place(str(cursor)))

    def change(self, client: int, join: Sequence[str], leave: Sequence[str], kind: str) -> None:
        who = self.clients[client]
        if who.worker is None:
            return
        start = self._start(who, kind, join)
        arguments: dict[str, Any] = {"connection": who.connection, "join": join, "leave": leave}
        arguments |= {"since": start.cursor, "last": start.newest}
        self.brokers[0].publish([publication(Command("channels", arguments))])
        who.sink.judge.wishes(join, leave, start)

    def open(
        self,
        client: int,
        worker: int,
        channels: tuple[str, ...],
        kind: str,
        wait: float | None = None,
        gzip: bool = False,
    ) -> None:
        who = self.clients[client]
        who.leave()
        who.open(self, self.workers[worker], channels, self._start(who, kind, channels), wait, gzip)

    def _start(self, who: SplitClient, kind: str, channels: Sequence[str]) -> Start:
        cursor = who.sink.judge.cursor if who.worker else who.cursor
        return {
            "own": Start(cursor),
            "latest": Start(self.page()),
            "live": Start(),
            "earliest": Start(EARLIEST),
            "newest": Start(newest=len(channels)),
            "bogus": Start(BOGUS[1]),
            "future": Start(self.brokers[0]._epoch + FUTURE),
        }[kind]

    def page(self) -> str:
        """The cursor of a page: good for any channels."""
        return str(vector.Vector(vector.ANY, tuple(Cursor(each._epoch, each._last) for each in self.brokers)))

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

    def forget_all(self, shard: int, clock_back: bool) -> None:
        broker = self.brokers[shard]
        name = epoch(shard, len(broker.truth._epochs))
        broker._heads.clear()
        broker._lists.clear()
        broker._epoch, broker._last, broker._horizon = name, 0, 0
        broker.lineage = {}
        broker.truth.new_epoch(name)
        broker.truth.tampered.clear()
        self.copy(shard)
        if clock_back:
            CLOCK.micros -= 500

    def copy(self, shard: int) -> None:
        self.brokers[shard].kept_copy = self.brokers[shard].copy()

    def fail_over(self, shard: int) -> None:
        broker = self.brokers[shard]
        copy: Copy = broker.kept_copy
        name = epoch(shard, len(broker.truth._epochs))
        broker.truth.fork(name, copy.epoch, copy.last)
        for worker in self.workers:
            wire = worker.ears[shard].gate.wire
            if wire:
                wire.lose()
        broker.promote(copy, name)
        self.copy(shard)

    def tamper(self, shard: int, name: str, how: str) -> None:
        kept = self.brokers[shard]._lists.get(name)
        if kept:
            self.brokers[shard].truth.tampered.add(name)
            {"all": kept.clear, "newest": kept.pop, "oldest": kept.popleft}[how]()

    def ears(self) -> Iterator[Ear]:
        for worker in self.workers:
            yield from worker.ears

    def settle(self) -> None:
        self.arrive()
        for ear in self.ears():
            ear.gate.reachable = True
        for _ in range(60):
            for worker in self.workers:
                if any(ear.gate.wire and ear.gate.wire.deaf for ear in worker.ears):
                    CLOCK.now += 3 * SETTINGS.probe
                if not worker.quiet:
                    CLOCK.now += max(wait for wait in WAITS if wait)
                    for ear in worker.ears:
                        ear.probe()
                worker.run()
            moved = [client.follow() for client in self.clients]
            waiting = any(client.worker and not client.joined for client in self.clients)
            if not any(moved) and not waiting and all(worker.quiet for worker in self.workers):
                break
        else:
            raise AssertionError("it never comes to rest")
        for worker in self.workers:
            for ear in worker.ears:
                ear.probe()
            worker.run()
        CLOCK.now += 1.5 * SETTINGS.heartbeat
        for worker in self.workers:
            worker.tick()
        for client in self.clients:
            if client.worker:
                assert client.sink.judge.has_all(), f"{client.name} waits for an event in vain"


class Late(NotedPrimary):
    """A shard as publishers reach it: what is on its way to a later one may be held up."""

    def __init__(self, world: SplitWorld, shard: int) -> None:
        super().__init__(shard)
        self._world = world
        self._number = shard

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        broker, waiting = self._world.brokers[self._number], self._world.late[self._number]
        if self._world.holding and self._number:
            waiting.append(lambda: broker.publish(publications))
            return [Cursor(broker._epoch, 0)] * len(publications)
        self._world.arrive()
        return broker.publish(publications)
