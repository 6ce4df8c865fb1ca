"""The world of `simulation` with two shards: a broker, a link and a history call for each, all on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flask_sse_push.brokers.base import Bounds
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.history.position import StartPoint
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Publication

from .judge import Judge, Truth
from .simulation import Stage
from .split_judge import COUNT, LegTruth, SplitJudge
from .stepping import CLOCK, KEPT, TTL, Copy, Primary, Worker


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


class SplitWorld(Stage):
    """All on several shards, of which each may fail by itself."""

    crowd = ((0, ("a", "d")), (0, ("b", "d")), (1, ("a", "b", "d")))

    def __init__(self) -> None:
        CLOCK.reset()
        self.brokers = [NotedPrimary(k) for k in range(COUNT)]
        self._sharded = ShardedBroker([Late(self, k) for k in range(COUNT)])
        self.late: list[deque[Callable[[], object]]] = [deque() for _ in range(COUNT)]
        self.channels: dict[str, tuple[str, ...]] = {}
        self.holding = False  # whether the later shards of a publish wait
        super().__init__(self.brokers)

    @property
    def truth(self) -> Truth:
        return self.brokers[0].truth

    def judge(self, worker: Worker, who: set[str], channels: tuple[str, ...], start: StartPoint) -> Judge:
        return SplitJudge(self, who, channels, start, worker.is_behind)

    def publish(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]], *, hold: bool = False
    ) -> None:
        first = self._serial + 1
        publications = self.publications(events)
        for at, each in enumerate(publications):
            self.channels[str(first + at)] = each.channels
        self.holding = hold
        self._sharded.publish(publications)
        self.holding = False

    def arrive(self) -> None:
        """What was held up on its way to the later shards comes."""
        for waiting in self.late:
            while waiting:
                waiting.popleft()()

    def latest(self) -> str:
        """The cursor of a page: good for any channels."""
        return str(
            shard_cursor.ShardCursor(
                shard_cursor.ANY_CHANNELS, tuple(Cursor(each._epoch, each._last) for each in self.brokers)
            )
        )

    def forget_all(self, shard: int, clock_back: bool) -> None:
        broker = self.brokers[shard]
        name = epoch(shard, len(broker.truth._epochs))
        broker.forget(name)
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
            worker.ears[shard].lose()
        broker.promote(copy, name)
        self.copy(shard)

    def tamper(self, shard: int, name: str, how: str) -> None:
        if self.brokers[shard].tamper(name, how):
            self.brokers[shard].truth.tampered.add(name)

    def settle(self) -> None:
        self.arrive()
        super().settle()


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
