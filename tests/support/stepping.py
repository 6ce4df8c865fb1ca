"""Brokers, links and workers that take every step on demand.

Hubs, readers and fetchers are the real ones, but no thread runs them: they are greenlets, and each I/O call
gives the turn back to whoever plays the scheduler. So what a test decides is all that happens, and the same
decisions give the same course of events.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

from flask_sse_push.brokers.base import Broker, History, Link, LinkMessage
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.history.shards import Shard, ShardItem
from flask_sse_push.hub.commands import Effect
from flask_sse_push.hub.group import Delivery
from flask_sse_push.hub.hub import Hub
from flask_sse_push.protocol.cursor import Cursor, Lineage
from flask_sse_push.protocol.entry import Publication

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
#: As much as there is.
ALL = 10**6


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

    def forget(self, epoch: str) -> None:
        """What FLUSHALL does: links stay."""
        self._heads.clear()
        self._lists.clear()
        self._epoch, self._last, self._horizon = epoch, 0, 0
        self.lineage = {}

    def tamper(self, name: str, how: str) -> bool:
        """Takes "all", the "newest" or the "oldest" entry out of a list; returns whether there was one."""
        kept = self._lists.get(name)
        if kept:
            {"all": kept.clear, "newest": kept.pop, "oldest": kept.popleft}[how]()
        return bool(kept)


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
        self._arrived: list[LinkMessage] = []
        self.broken = self.deaf = False

    def subscribe(self, channels: Sequence[str]) -> None:
        self._send("subscribe", channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._send("unsubscribe", channels)

    def _send(self, command: str, channels: Sequence[str]) -> None:
        if self.broken:
            raise BrokerUnavailable("cut")
        self._sent.append((command, list(channels)))

    def read(self, timeout: float) -> list[LinkMessage]:
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
        self.counts = broker.counts
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
        """One step of a history call: to be sent, to be answered, to be delivered."""
        if self._fetching is None or self._fetching.dead:
            self._fetching = greenlet(self.shard.fetcher._fetch)
            self._fetching.switch()
        else:
            self._fetching.switch(lose)

    def reopen(self) -> None:
        """The link breaks, and the new one has so far got no further than its own inbox."""
        self.read(Turn(ALL, 0, "cut"))
        self.read(Turn())
        self.read(Turn(1, 0))

    def lose(self) -> None:
        """The link breaks; what is in the socket's buffer can still be read."""
        if self.gate.wire:
            self.gate.wire.lose()

    def fetch_all(self) -> None:
        """All history calls that are wanted now."""
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
        history_cache = self.shard.history_cache
        waiting = any(
            name in history_cache.caches for reply in history_cache.reads.replies for name in reply.requests
        )
        busy = history_cache._holds or history_cache.reads.joining or waiting or self.shard.fetcher._queued
        linked = self.gate.wire is not None and self.gate.wire.quiet and self.shard.reader.connected
        return linked and not (busy or self.fetching or self.shard.reader._changes)


class Worker:
    """A hub over all shards whose threads take their steps one by one."""

    def __init__(self, brokers: Sequence[MemoryBroker]) -> None:
        self._brokers = brokers
        gates = [Gate(each) for each in brokers]
        self.hub = Hub(ShardedBroker(gates), SETTINGS)
        self.hub._started = True
        self.ears = [Ear(shard, gates[shard.number]) for shard in self.hub._shards.all]
        self._deliveries: list[Delivery | Effect] = []

    def dispatch(self, count: int = ALL) -> None:
        items: list[ShardItem] = []
        while not self.hub._inbox.empty() and len(items) < count:
            items.append(self.hub._inbox.get())
        # The dispatcher delivers one batch before it takes the next.
        self.deliver()
        if items or self.hub._channel_changes or self.hub._fanout.waiting.is_due(CLOCK.now):
            self._deliveries = self.hub._dispatch(items)

    def deliver(self, count: int = ALL) -> None:
        now, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self.hub._deliver(now)

    def tick(self) -> None:
        self.deliver()
        self.hub._maintenance.round(CLOCK.now)

    def run(self) -> None:
        """Lets the worker do all it can do now."""
        for ear in self.ears:
            ear.read(Turn())
            ear.fetch_all()
            ear.read(Turn())
        self.dispatch()
        self.deliver()

    def probe(self) -> None:
        for ear in self.ears:
            ear.probe()

    def is_behind(self, shard: int) -> bool:
        """Whether it has not heard of a shard's last failover."""
        return self.ears[shard].shard.history_cache._epoch != self._brokers[shard]._epoch

    @property
    def quiet(self) -> bool:
        batches = any(group.pending for group in self.hub._fanout.groups.values())
        busy = batches or self._deliveries or self.hub._inbox.qsize() or self.hub._channel_changes
        return not busy and all(ear.quiet for ear in self.ears)
