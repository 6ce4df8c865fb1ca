"""The delivery promise over two shards, under every order of things; see test_hub_model."""

from __future__ import annotations

import os
import random

import pytest

from flask_sse_push import batching, fetcher, http_encoding, hub, reader, resume
from flask_sse_push.brokers import memory
from flask_sse_push.brokers.base import BROADCAST
from flask_sse_push.control import CONTROL
from tests.support.simulation import ALL, CLOCK, PIECE, WAITS, Turn
from tests.support.split_judge import COUNT
from tests.support.split_simulation import Ear, SplitWorker, SplitWorld


class SplitWalk:
    """Steps by dice. Each walk has a temper of its own: what is rare in one is frequent in another."""

    NAMES = ("a", "b", "d", "e")
    KINDS = ("own", "own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")
    STEPS = {
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
        self.world = SplitWorld()
        self._chance = chance
        self._pick = chance.choice
        self._parts = [ALL] * chance.randrange(4) + [0, 1, 2]
        crowd = tuple(chance.sample(self.NAMES, 2)), self._pick([0.0, 2.5]), chance.random() < 0.6
        self._crowd = crowd if chance.random() < 0.5 else None
        # Most clients come back for the channels that they had: only then their cursors count.
        self._own = [tuple(chance.sample(self.NAMES, self._pick([1, 2, 2, 3]))) for _ in range(4)]

    def go(self, steps: int) -> None:
        if self._chance.random() < 0.5:
            self.world.populate()
        weights = [weight * 10 ** self._chance.uniform(-0.7, 0.7) for weight in self.STEPS.values()]
        for name in self._chance.choices(list(self.STEPS), weights, k=steps):
            getattr(self, name)()
        self.world.settle()

    def worker(self) -> SplitWorker:
        return self._pick(self.world.workers)

    def ear(self) -> Ear:
        return self._pick(list(self.world.ears()))

    def shard(self) -> int:
        return self._chance.randrange(COUNT)

    def client(self) -> int:
        return self._chance.randrange(4)

    def publish(self) -> None:
        events = [self.event() for _ in range(self._pick([1, 1, 2, 3]))]
        self.world.publish(events, hold=self._chance.random() < 0.4)

    def arrive(self) -> None:
        self.world.arrive()

    def event(self) -> tuple[list[str], list[str], float | None]:
        chance = self._chance
        count = self._pick([1, 1, 2, 3])
        names = chance.sample(self.NAMES, count) if chance.random() < 0.9 else [BROADCAST]
        exclude = [f"k{self.client()}"] if chance.random() < 0.1 else []
        return names, exclude, self._pick([0.0, 1.0]) if chance.random() < 0.05 else None

    def open(self) -> None:
        client = self.client()
        if self._chance.random() < 0.2:
            self._own[client] = tuple(self._chance.sample(self.NAMES, self._pick([1, 2, 2, 3])))
        names = self._own[client]
        wait = self._pick(WAITS)
        gzip = self._chance.random() < 0.5
        if self._crowd and self._chance.random() < 0.8:
            names, wait, gzip = self._crowd
        self.world.open(client, self._chance.randrange(2), names, self._pick(self.KINDS), wait, gzip)

    def follow(self) -> None:
        self.world.follow(self.client(), self._pick([1, 9]))

    def leave(self) -> None:
        self.world.clients[self.client()].leave(self._pick([0, 0, 1, 3]))

    def disconnect(self) -> None:
        self.world.disconnect(self.client())

    def change(self) -> None:
        join, leave = (self._chance.sample(self.NAMES, self._pick([0, 1, 1, 2])) for _ in range(2))
        self.world.change(self.client(), join, leave, self._pick(self.KINDS))

    def read(self) -> None:
        self.ear().read(Turn(self._pick(self._parts), self._pick(self._parts)))

    def fetch(self) -> None:
        self.ear().fetch(lose=self._chance.random() < 0.15)

    def dispatch(self) -> None:
        self.worker().dispatch(self._pick([1, 2, ALL]))

    def deliver(self) -> None:
        self.worker().deliver(1)

    def run(self) -> None:
        self.worker().run()

    def run_all(self) -> None:
        self.world.run_all()

    def probe(self) -> None:
        self.ear().probe()

    def lose_the_link(self) -> None:
        self.ear().read(Turn(ALL, self._pick([0, 1, 2, ALL]), self._pick(["cut", "cut", "deaf"])))

    def reopen(self) -> None:
        self.ear().reopen()

    def reach(self) -> None:
        self.ear().gate.reachable = self._chance.random() < 0.7

    def tick(self) -> None:
        self.world.tick(self._chance.randrange(2), self._pick([0.5, 1.5, 3.0, 12.0]))

    def time_passes(self) -> None:
        CLOCK.micros += self._pick([1, 3, 100, 1000, 20_000_000, 70_000_000])

    def forget_all(self) -> None:
        self.world.forget_all(self.shard(), self._chance.random() < 0.5)

    def copy(self) -> None:
        self.world.copy(self.shard())

    def fail_over(self) -> None:
        self.world.fail_over(self.shard())

    def tamper(self) -> None:
        name = self._pick((*self.NAMES, BROADCAST, CONTROL))
        self.world.tamper(self.shard(), name, self._pick(["all", "newest", "oldest"]))

    def settle(self) -> None:
        self.world.settle()


@pytest.fixture(autouse=True)
def _simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, hub, reader, fetcher):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(resume, "MAX_PIECE", PIECE)
    monkeypatch.setattr(batching, "MAX_EVENTS", 3)
    monkeypatch.setattr(http_encoding, "MAX_WINDOWS", 2)
    for module in (fetcher, reader):
        monkeypatch.setattr(module, "MAX_AT_ONCE", 2)


@pytest.mark.parametrize("steps", [50, 200])
def test_random_walks_over_two_shards_find_no_way_to_break_the_promise(steps: int) -> None:
    first = int(os.environ.get("HUB_MODEL_SEED", "0"))
    for seed in range(first, first + 10_000 // steps):
        try:
            SplitWalk(random.Random(seed)).go(steps)
        except AssertionError as error:
            raise AssertionError(
                f"SplitWalk(random.Random({seed})).go({steps}) broke the promise: {error}"
            ) from error
