"""The delivery promise over two shards, under every order of steps; see test_hub_model."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

import pytest

from flask_sse_push.protocol.channel import BROADCAST
from tests.support.account.shards import COUNT
from tests.support.sharded_simulation import ShardedWorld
from tests.support.simulation import Arrival
from tests.support.stepping import ShardThreads
from tests.support.walk import Walk, explore


class ShardedWalk(Walk[ShardedWorld]):
    """As over one shard, but each shard fails alone, and publishers are held up between the shards."""

    names = ("a", "b", "d", "e")
    kinds = ("own", "own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")
    steps: ClassVar[Mapping[str, float]] = {
        "publish": 18,
        "arrive": 6,
        "open": 8,
        "follow": 8,
        "leave": 4,
        "disconnect": 1.5,
        "change": 3,
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
        "copy": 3,
        "fail_over": 0.7,
        "tamper": 0.5,
        "settle": 1,
    }

    def __init__(self, chance: random.Random) -> None:
        super().__init__(ShardedWorld(), chance)
        # Most clients come back for the channels that they had: only then their cursors count.
        self._own = [self.stream_names() for _ in range(4)]

    def threads(self) -> ShardThreads:
        return self.pick(list(self.world.all_threads()))

    def shard(self) -> int:
        return self.chance.randrange(COUNT)

    def event_names(self) -> list[str]:
        # The count is drawn first: as HubWalk draws, the fixed seeds would choose other walks.
        count = self.pick([1, 1, 2, 3])
        return self.chance.sample(self.names, count) if self.chance.random() < 0.9 else [BROADCAST]

    def publish(self) -> None:
        self.world.publish(self.events(), hold=self.chance.random() < 0.4)

    def arrive(self) -> None:
        self.world.arrive()

    def open(self) -> None:
        client = self.client()
        if self.chance.random() < 0.2:
            self._own[client] = self.stream_names()
        names, wait, gzip = self.stream(self._own[client])
        self.world.open(Arrival(client, self.chance.randrange(2), names, self.pick(self.kinds), wait, gzip))

    def forget_all(self) -> None:
        shard = self.shard()
        self.world.forget_all(self.chance.random() < 0.5, shard)

    def copy(self) -> None:
        self.world.copy(self.shard())

    def fail_over(self) -> None:
        self.world.fail_over(self.shard())

    def tamper(self) -> None:
        name, shard = self.tampered_name(), self.shard()
        self.world.tamper(name, self.tampering(), shard)


pytestmark = pytest.mark.usefixtures("simulation")


@pytest.mark.parametrize("steps", [50, 200])
def test_random_walks_over_two_shards_find_no_way_to_break_the_promise(steps: int) -> None:
    explore(ShardedWalk, steps, total=10_000)
