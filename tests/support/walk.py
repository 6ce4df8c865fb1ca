"""Random walks through a simulation. They are quicker than Hypothesis. The same seed gives the same walk."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.command import COMMAND_CHANNEL

from .simulation import WAITS, Stage
from .stepping import ALL, CLOCK, ShardThreads, Turn

T = TypeVar("T")
W = TypeVar("W", bound=Stage)


class Walk(ABC, Generic[W]):
    """Takes random steps. Each walk has its own probabilities for the steps."""

    #: The names of the channels.
    names: ClassVar[Sequence[str]]
    #: The kinds of cursor that a client may send. Most clients send their own.
    kinds: ClassVar[Sequence[str]]
    #: The names of the steps, and how often a walk takes each on average.
    steps: ClassVar[Mapping[str, float]]
    world: W

    def __init__(self, world: W, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self._parts = [ALL] * chance.randrange(4) + [0, 1, 2]
        # In half of the walks, many streams are equal and so share a group.
        crowd = tuple(chance.sample(self.names, 2)), self.pick([0.0, 2.5]), chance.random() < 0.6
        self._crowd = crowd if chance.random() < 0.5 else None

    def go(self, steps: int) -> None:
        if self.chance.random() < 0.5:
            self.world.populate()
        weights = [weight * 10 ** self.chance.uniform(-0.7, 0.7) for weight in self.steps.values()]
        for name in self.chance.choices(list(self.steps), weights, k=steps):
            getattr(self, name)()
        self.world.settle()

    # -- random choices; if their order changes, the same seed gives another walk

    def pick(self, options: Sequence[T]) -> T:
        return self.chance.choice(options)

    @abstractmethod
    def threads(self) -> ShardThreads:
        """Picks the threads of one worker for one shard."""

    @abstractmethod
    def event_names(self) -> list[str]:
        """Picks the channels of an event."""

    def client(self) -> int:
        return self.chance.randrange(4)

    def event(self) -> tuple[list[str], list[str], float | None]:
        names = self.event_names()
        exclude = [f"k{self.client()}"] if self.chance.random() < 0.1 else []
        return names, exclude, self.pick([0.0, 1.0]) if self.chance.random() < 0.05 else None

    def events(self) -> list[tuple[list[str], list[str], float | None]]:
        return [self.event() for _ in range(self.pick([1, 1, 2, 3]))]

    def stream_names(self) -> tuple[str, ...]:
        return tuple(self.chance.sample(self.names, self.pick([1, 2, 2, 3])))

    def stream(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], float | None, bool]:
        """Picks the channels of a new stream, how long its events may wait, and whether it is compressed."""
        wait = self.pick(WAITS)
        gzip = self.chance.random() < 0.5
        if self._crowd and self.chance.random() < 0.8:
            return self._crowd
        return names, wait, gzip

    def tampered_name(self) -> str:
        return self.pick((*self.names, BROADCAST, COMMAND_CHANNEL))

    def tampering(self) -> str:
        return self.pick(["all", "newest", "oldest"])

    # -- the steps that every world has

    def follow(self) -> None:
        self.world.follow(self.client(), self.pick([1, 9]))

    def leave(self) -> None:
        self.world.clients[self.client()].leave(self.pick([0, 0, 1, 3]))

    def disconnect(self) -> None:
        self.world.disconnect(self.client())

    def change(self) -> None:
        join, leave = (self.chance.sample(self.names, self.pick([0, 1, 1, 2])) for _ in range(2))
        self.world.change(self.client(), join, leave, self.pick(self.kinds))

    def read(self) -> None:
        self.threads().read(Turn(self.pick(self._parts), self.pick(self._parts)))

    def fetch(self) -> None:
        self.threads().fetch(lose=self.chance.random() < 0.15)

    def dispatch(self) -> None:
        self.pick(self.world.workers).dispatch(self.pick([1, 2, ALL]))

    def deliver(self) -> None:
        self.pick(self.world.workers).deliver(1)

    def run(self) -> None:
        self.pick(self.world.workers).run()

    def run_all(self) -> None:
        self.world.run_all()

    def probe(self) -> None:
        self.threads().probe()

    def lose_the_link(self) -> None:
        self.threads().read(Turn(ALL, self.pick([0, 1, 2, ALL]), self.pick(["cut", "cut", "silent"])))

    def reopen(self) -> None:
        self.threads().reopen()

    def reach(self) -> None:
        self.threads().gate.reachable = self.chance.random() < 0.7

    def tick(self) -> None:
        self.world.tick(self.chance.randrange(2), self.pick([0.5, 1.5, 3.0, 12.0]))

    def time_passes(self) -> None:
        CLOCK.micros += self.pick([1, 3, 100, 1000, 20_000_000, 70_000_000])

    def settle(self) -> None:
        self.world.settle()


def explore(walk: Callable[[random.Random], Walk[Any]], steps: int, total: int) -> None:
    """Goes several walks of `steps` steps each, with `total` steps in all.

    The seeds are 0, 1, 2 and so on; with HUB_MODEL_SEED they begin there.
    """
    first = int(os.environ.get("HUB_MODEL_SEED", "0"))
    for seed in range(first, first + total // steps):
        try:
            walk(random.Random(seed)).go(steps)
        except Exception as error:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
            replay = f"HUB_MODEL_SEED={seed} python -m pytest -x '{test}'"
            raise AssertionError(f"{type(error).__name__}: {error}\nReplay this walk: {replay}") from error
