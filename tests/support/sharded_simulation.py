"""The simulation with two shards. Each shard has its own broker, link and history calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Publication
from tests.support.policies import keeping

from .account.shards import COUNT, ShardedStreamAccount
from .account.verdict import Verdict
from .simulation import Stage
from .stepping import KEPT, TTL, Primary, Worker


class ShardedWorld(Stage):
    """Two shards. One can fail while the other works."""

    crowd = ((0, ("a", "d")), (0, ("b", "d")), (1, ("a", "b", "d")))
    epoch = f"{{shard}}{COUNT}e{{number:03d}}"

    def __init__(self) -> None:
        super().__init__(COUNT)
        self._sharded = ShardedBroker([DelayedShard(self, k) for k in range(COUNT)])
        self.delayed: list[deque[Callable[[], object]]] = [deque() for _ in range(COUNT)]
        self.channels: dict[int, tuple[str, ...]] = {}  # the channels of each event, by its serial number
        self.holding = False  # whether a publish is delayed on its way to all shards but the first

    def account_of(self, worker: Worker, identities: set[str]) -> ShardedStreamAccount:
        accounts, verdict = [broker.account for broker in self.brokers], Verdict(strict=True)
        return ShardedStreamAccount(
            accounts, self.channels, verdict, identities=identities, is_behind=worker.is_behind
        )

    def publish(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]], *, hold: bool = False
    ) -> None:
        first = self._serial + 1
        publications = self.publications(events)
        for index, publication in enumerate(publications):
            self.channels[first + index] = publication.channels
        self.holding = hold
        self._sharded.publish(publications)
        self.holding = False

    def arrive(self) -> None:
        """Delayed publishes reach their shards."""
        for waiting in self.delayed:
            while waiting:
                waiting.popleft()()

    def latest(self) -> str:
        """The cursor of the newest event on each shard. It is valid for any channels."""
        return str(
            shard_cursor.ShardCursor(
                shard_cursor.ANY_CHANNELS,
                tuple(Cursor(broker._epoch, broker._last) for broker in self.brokers),
            )
        )

    def settle(self) -> None:
        self.arrive()
        super().settle()


class DelayedShard(Primary):
    """A shard as a publisher sees it. An event may be delayed on its way to all shards but the first."""

    def __init__(self, world: ShardedWorld, shard: int) -> None:
        super().__init__(keeping(KEPT, TTL))
        self._world = world
        self._number = shard

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        broker, waiting = self._world.brokers[self._number], self._world.delayed[self._number]
        if self._world.holding and self._number:
            waiting.append(lambda: broker.publish(publications))
            return [Cursor(broker._epoch, 0)] * len(publications)
        self._world.arrive()
        return broker.publish(publications)
