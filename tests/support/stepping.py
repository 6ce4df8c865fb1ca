"""Brokers, links and workers that take one step at a time.

Hubs, readers and fetchers are the real ones, but they run in greenlets instead of threads. Each I/O call
switches back to the test, which is the scheduler. So the test decides everything that happens, and the same
decisions give the same result.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

from flask_sse_push.brokers.base import UNBOUNDED, Broker, History, Link, LinkMessage
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.history.shards import Shard, ShardItem
from flask_sse_push.hub.commands import Effect
from flask_sse_push.hub.group import Delivery
from flask_sse_push.hub.hub import Hub
from flask_sse_push.protocol.cursor import MAX_ID, Cursor, Lineage
from flask_sse_push.protocol.entry import Publication

#: Small limits, so that lists are trimmed, and recoveries take several chunks, all the time.
KEPT = 5
TTL = 60.0
SETTINGS = Settings(
    history_size=KEPT,
    history_ttl=TTL,
    replica_bytes=300,
    catch_up_page=1300,
    catch_up_bytes=16_000,
    heartbeat=1.0,
    probe=5.0,
    linger=2.0,
    batch_ms=(("d", 300),),
)
#: No limit.
ALL = 10**6


class Clock:
    """Takes the place of the `time` module in the package."""

    def __init__(self) -> None:
        self.micros = 0
        self.now = 0.0
        self.reset()

    def reset(self) -> None:
        self.micros = 1_000_000_000
        self.now = 1000.0

    def time_ns(self) -> int:
        return self.micros * 1000

    def time(self) -> float:
        return self.micros / 1e6

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds and getcurrent().parent is not None:
            pause(ASLEEP)


CLOCK = Clock()
#: What the scheduler gets from a greenlet that sleeps.
ASLEEP = "asleep"


def pause(*values: Any) -> Any:
    """Switches to the scheduler. Returns its decision when it switches back."""
    scheduler = getcurrent().parent
    assert scheduler is not None
    return scheduler.switch(*values)


class Copy(NamedTuple):
    """The data of a replica."""

    epoch: str
    last: int
    horizon: int
    heads: OrderedDict[str, int]
    lists: dict[str, deque[bytes]]
    ends: dict[str, int]
    lineage: Lineage


class Primary(MemoryBroker):
    """A memory broker whose replica may take over. It follows the same rules as the scripts in Redis."""

    lineage: Lineage = {}

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> History:
        return super().history(after, inbox, room)._replace(lineage=self.lineage)

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        return super().page(after, inbox, room)._replace(lineage=self.lineage)

    def copy(self) -> Copy:
        lists = {name: entries.copy() for name, entries in self._lists.items()}
        heads, ends = self._heads.copy(), self._ends.copy()
        return Copy(self._epoch, self._last, self._horizon, heads, lists, ends, self.lineage)

    def promote(self, copy: Copy, epoch: str) -> None:
        """Replaces the data by the copy, and begins the epoch `epoch`."""
        self._epoch, self._last, self._horizon = epoch, copy.last, copy.horizon
        self._heads, self._lists, self._ends = copy.heads, copy.lists, copy.ends
        self._ending = sorted((end, name) for name, end in copy.ends.items())
        self._totals.clear()
        self.lineage = {copy.epoch: copy.last, **copy.lineage}

    def forget(self, epoch: str) -> None:
        """Deletes all data as FLUSHALL does, and begins the epoch `epoch`. The links stay open."""
        self._heads.clear()
        for each in (self._lists, self._ends, self._ending, self._totals):
            each.clear()
        self._epoch, self._last, self._horizon = epoch, 0, 0
        self.lineage = {}

    def tamper(self, name: str, how: str) -> bool:
        """Deletes all entries of a list, or only the newest or oldest. Returns whether there was an entry."""
        kept = self._lists.get(name)
        if kept:
            {"all": kept.clear, "newest": kept.pop, "oldest": kept.popleft}[how]()
        return bool(kept)


class Turn(NamedTuple):
    """The scheduler's decision about one read."""

    commands: int = ALL  # how many of the commands sent so far reach the broker
    signals: int = ALL  # how many of the signals that arrived this read returns
    end: str = ""  # "cut": then the link breaks; "silent": then nothing comes any more, and no error


class Wire(Link):
    """A link to the memory broker. Commands and signals move on it only when the scheduler says so."""

    def __init__(self, broker: MemoryBroker, inbox: str) -> None:
        self._broker = broker
        self._inbox = inbox
        self._link: Link | None = None
        self._sent: list[tuple[str, list[str]]] = [("open", [])]
        self._arrived: list[LinkMessage] = []
        self.broken = self.silent = False

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
            self.broken, self.silent = self.broken or turn.end == "cut", True
            if self._link:
                self._link.close()
        if self.broken and not signals:
            raise BrokerUnavailable("cut")
        if self.silent:
            self._arrived = []
        return signals

    def _carry(self, count: int) -> None:
        if self.silent:
            return
        now, self._sent = self._sent[:count], self._sent[count:]
        for command, channels in now:
            if command == "open":
                self._link = self._broker.link(self._inbox)
            else:
                assert self._link is not None
                getattr(self._link, command)(channels)
        if self._link:
            self._arrived += self._link.read(0)

    def lose(self) -> None:
        """Breaks the link. The next read still returns the signals that have arrived."""
        if self._link and not self.silent:
            self._arrived += self._link.read(0)
        self.broken = self.silent = True
        if self._link:
            self._link.close()

    @property
    def quiet(self) -> bool:
        """Whether no command and no signal is under way."""
        if self._link and not self.silent:
            self._arrived += self._link.read(0)
        return not (self.silent or self._sent or self._arrived)

    def close(self) -> None:
        self.broken = self.silent = True
        if self._link:
            self._link.close()


class Gate(Broker):
    """The memory broker as one worker reaches it, over a network that may be down for this worker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.counts = broker.counts
        self.reachable = True
        self.wire: Wire | None = None

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        raise NotImplementedError

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> Any:
        return self._answer(lambda: self._broker.history(after, inbox, room))

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> Any:
        return self._answer(lambda: self._broker.page(after, inbox, room))

    def newest(self, channels: Sequence[str], count: int, before: int = MAX_ID) -> Any:
        return self._answer(lambda: self._broker.newest(channels, count, before))

    def _answer(self, call: Callable[[], Any]) -> Any:
        pause()
        self._reach()
        answer = call()
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
        """Does nothing: the scheduler wakes readers."""

    def close(self) -> None:
        raise NotImplementedError


class ShardThreads:
    """The reader and the fetcher of one shard in one worker. A real worker runs them in threads."""

    def __init__(self, shard: Shard, gate: Gate) -> None:
        self.shard = shard
        self.gate = gate
        self._reading = greenlet(shard.reader.run)
        self._reading.switch()
        self._fetching: greenlet | None = None

    def read(self, turn: Turn) -> None:
        if self._reading.switch(turn) == ASLEEP and self.gate.reachable:
            self._reading.switch()
        assert not self._reading.dead

    @property
    def fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.dead

    def fetch(self, *, lose: bool = False) -> None:
        """Takes one step of a history call: sends it, gets the reply, or delivers the reply."""
        if self._fetching is None or self._fetching.dead:
            self._fetching = greenlet(self.shard.fetcher._fetch)
            self._fetching.switch()
        else:
            self._fetching.switch(lose)

    def reopen(self) -> None:
        """The link breaks. The new link has subscribed only to the worker's inbox so far."""
        self.read(Turn(ALL, 0, "cut"))
        self.read(Turn())
        self.read(Turn(1, 0))

    def lose(self) -> None:
        """The link breaks; see `Wire.lose`."""
        if self.gate.wire:
            self.gate.wire.lose()

    def fetch_all(self) -> None:
        """Makes all history calls that are queued."""
        waiting = ALL
        while self.fetching or 0 < len(self.shard.fetcher.queue) < waiting:
            if not self.fetching:
                waiting = len(self.shard.fetcher.queue)
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
        busy = history_cache.paused or history_cache.reads.joining or waiting or self.shard.fetcher.queue
        linked = self.gate.wire is not None and self.gate.wire.quiet and self.shard.reader.connected
        return linked and not (busy or self.fetching or self.shard.reader._changes)


class Worker:
    """A hub over all shards, whose threads take one step at a time."""

    def __init__(self, brokers: Sequence[MemoryBroker], settings: Settings = SETTINGS) -> None:
        self._brokers = brokers
        gates = [Gate(broker) for broker in brokers]
        self.hub = Hub(ShardedBroker(gates), settings)
        self.hub._started = True
        self.threads = [ShardThreads(shard, gates[shard.number]) for shard in self.hub._shards.all]
        self._arrived: list[ShardItem] = []
        self._deliveries: list[Delivery | Effect] = []

    def dispatch(self, count: int = ALL) -> None:
        # The dispatcher delivers one batch before it takes the next.
        self.deliver()
        # The dispatcher has the turn until all is delivered. At other times link readers may dispatch.
        self.hub._dispatcher.turn.acquire(blocking=False)
        self._arrived += self.hub._inbox.take()
        items, self._arrived = self._arrived[:count], self._arrived[count:]
        if items or self.hub._dispatcher.is_due():
            self._deliveries = self.hub._dispatcher.dispatch(items)
        self._give_turn_back()

    def deliver(self, count: int = ALL) -> None:
        left, self.hub._dispatcher._handed_over = self.hub._dispatcher._handed_over, []
        self.hub._dispatcher.deliver(left)
        now, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self.hub._dispatcher.deliver(now)
        self._give_turn_back()

    def _give_turn_back(self) -> None:
        if not self._deliveries and not self._arrived and self.hub._dispatcher.turn.locked():
            self.hub._dispatcher.turn.release()

    def tick(self) -> None:
        self.deliver()
        self.hub._dispatcher.maintenance.round(CLOCK.now)

    def run(self) -> None:
        """Lets the worker do everything that it can do now."""
        for threads in self.threads:
            threads.read(Turn())
            threads.fetch_all()
            threads.read(Turn())
        self.dispatch()
        self.deliver()

    def probe(self) -> None:
        for threads in self.threads:
            threads.probe()

    def is_behind(self, shard: int) -> bool:
        """Whether the worker does not know of a shard's last failover yet."""
        return self.threads[shard].shard.history_cache._epoch != self._brokers[shard]._epoch

    @property
    def quiet(self) -> bool:
        batches = any(group.pending for group in self.hub._fanout.groups.values())
        waiting = self._arrived or len(self.hub._inbox) or self.hub._channel_changes.under_way
        busy = batches or self._deliveries or waiting
        return not busy and all(threads.quiet for threads in self.threads)
