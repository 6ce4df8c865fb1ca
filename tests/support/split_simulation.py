"""The world of `simulation` with two shards: each has a broker, a link and history calls of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flask_sse_push.brokers.base import Bounds
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.protocol import shard_cursor
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Publication

from .account.shards import COUNT, ShardedStreamAccount
from .account.verdict import Verdict
from .simulation import Stage
from .stepping import KEPT, TTL, Primary, Worker


class SplitWorld(Stage):
    """Two shards, each of which may fail alone."""

    crowd = ((0, ("a", "d")), (0, ("b", "d")), (1, ("a", "b", "d")))
    epoch = f"{{shard}}{COUNT}e{{number:03d}}"

    def __init__(self) -> None:
        super().__init__(COUNT)
        self._sharded = ShardedBroker([Late(self, k) for k in range(COUNT)])
        self.late: list[deque[Callable[[], object]]] = [deque() for _ in range(COUNT)]
        self.channels: dict[int, tuple[str, ...]] = {}  # of each event, by serial
        self.holding = False  # whether a publish is held up before it reaches the later shards

    def account_of(self, worker: Worker, identities: set[str]) -> ShardedStreamAccount:
        accounts, verdict = [each.account for each in self.brokers], Verdict(strict=True)
        return ShardedStreamAccount(
            accounts, self.channels, verdict, identities=identities, is_behind=worker.is_behind
        )

    def publish(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]], *, hold: bool = False
    ) -> None:
        first = self._serial + 1
        publications = self.publications(events)
        for at, each in enumerate(publications):
            self.channels[first + at] = each.channels
        self.holding = hold
        self._sharded.publish(publications)
        self.holding = False

    def arrive(self) -> None:
        """Publishes that were held up reach the later shards."""
        for waiting in self.late:
            while waiting:
                waiting.popleft()()

    def latest(self) -> str:
        """The cursor of a page, which counts for any channels."""
        return str(
            shard_cursor.ShardCursor(
                shard_cursor.ANY_CHANNELS, tuple(Cursor(each._epoch, each._last) for each in self.brokers)
            )
        )

    def settle(self) -> None:
        self.arrive()
        super().settle()


class Late(Primary):
    """A shard as a publisher reaches it: an event may be held up on its way to a later shard."""

    def __init__(self, world: SplitWorld, shard: int) -> None:
        super().__init__(Bounds(KEPT, TTL))
        self._world = world
        self._number = shard

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        broker, waiting = self._world.brokers[self._number], self._world.late[self._number]
        if self._world.holding and self._number:
            waiting.append(lambda: broker.publish(publications))
            return [Cursor(broker._epoch, 0)] * len(publications)
        self._world.arrive()
        return broker.publish(publications)
