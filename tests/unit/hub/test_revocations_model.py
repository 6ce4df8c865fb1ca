"""The promise of `revoke` under every order of steps: no event reaches a user whose right to it has ended.

Users connect, join channels, and use tickets. The app's rules answer late, and their answers are out of date
by then. Links break, replies come late, workers lose their last stream and get another one, and a replica
takes over.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_push.auth.policy import Grant
from flask_sse_push.auth.tickets import Ticket
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub import disconnect, revocations
from flask_sse_push.hub.disconnect import Disconnector
from flask_sse_push.hub.revocations import Revocations
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.channel import shard_of
from flask_sse_push.protocol.command import REVOKE, Command, command_publication
from flask_sse_push.protocol.cursor import EARLIEST
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.protocol.event import make_event
from tests.support.policies import keeping
from tests.support.rights import CHANNELS, LUCKY, POLICIES, TICK, USERS, RightsWorld, UserStream
from tests.support.stepping import ALL, CLOCK, Primary, Turn, Worker

#: How often a walk takes each step, on average.
STEPS = {
    "connect": 9,
    "join": 9,
    "answer": 14,
    "revoke": 9,
    "allow": 9,
    "sign": 3,
    "use_ticket": 4,
    "recheck": 2,
    "leave_channel": 2,
    "close": 4,
    "publish": 14,
    "follow": 14,
    "read": 10,
    "fetch": 10,
    "dispatch": 8,
    "deliver": 3,
    "run": 10,
    "run_callbacks": 3,
    "lose_the_link": 1,
    "reopen": 1,
    "reach": 1,
    "fail_over": 0.5,
    "pass_time": 5,
    "settle": 1,
}


class RightsWalk:
    """Takes random steps. Each walk has its own probabilities for the steps."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = RightsWorld()

    def go(self, steps: int) -> None:
        if self._flag():
            self.world.populate()
        weights = [weight * 10 ** self.chance.uniform(-0.7, 0.7) for weight in STEPS.values()]
        for name in self.chance.choices(list(STEPS), weights, k=steps):
            getattr(self, name)()
        self.world.settle()

    def _number(self) -> int:
        return self.chance.randrange(100)

    def _worker(self) -> int:
        return self.chance.randrange(2)

    def _names(self) -> tuple[str, ...]:
        return tuple(self.chance.sample(CHANNELS, self.chance.choice([1, 1, 2])))

    def _flag(self) -> bool:
        return self.chance.random() < 0.5

    def connect(self) -> None:
        user = self.chance.choice(USERS)
        self.world.connect(self._worker(), user, self._names(), missed=self._flag())

    def join(self) -> None:
        by_app = self.chance.random() < 0.1
        self.world.join(self._number(), self.chance.choice(CHANNELS), by_app=by_app)

    def answer(self) -> None:
        self.world.answer(self._number())

    def revoke(self) -> None:
        user = self.chance.choice([user for user in USERS if user != LUCKY])
        self.world.revoke(user, self.chance.choice([None, *CHANNELS]))

    def allow(self) -> None:
        self.world.allow(self.chance.choice(USERS))

    def sign(self) -> None:
        self.world.sign(self.chance.choice(USERS), self._names())

    def use_ticket(self) -> None:
        self.world.use_ticket(self._number(), self._worker(), missed=self._flag())

    def recheck(self) -> None:
        self.world.recheck(self._number())

    def leave_channel(self) -> None:
        self.world.leave_channel(self._number(), self.chance.choice(CHANNELS))

    def close(self) -> None:
        self.world.close(self._number())

    def publish(self) -> None:
        self.world.publish(self._names())

    def follow(self) -> None:
        self.world.follow(self._number())

    def _threads(self) -> Any:
        return self.world.workers[self._worker()].threads[0]

    def read(self) -> None:
        self._threads().read(
            Turn(self.chance.choice([ALL, ALL, 0, 1, 2]), self.chance.choice([ALL, 0, 1, 2]))
        )

    def fetch(self) -> None:
        self._threads().fetch(lose=self.chance.random() < 0.15)

    def dispatch(self) -> None:
        self.world.workers[self._worker()].dispatch(self.chance.choice([1, 2, ALL]))

    def deliver(self) -> None:
        self.world.workers[self._worker()].deliver(1)

    def run(self) -> None:
        self.world.run(self._worker())

    def run_callbacks(self) -> None:
        self.world.run_callbacks(self._worker())

    def lose_the_link(self) -> None:
        self._threads().read(
            Turn(ALL, self.chance.choice([0, 1, ALL]), self.chance.choice(["cut", "silent"]))
        )

    def reopen(self) -> None:
        self._threads().reopen()

    def reach(self) -> None:
        self._threads().gate.reachable = self.chance.random() < 0.7

    def fail_over(self) -> None:
        self.world.fail_over()

    def pass_time(self) -> None:
        self.world.pass_time(self.chance.choice([0.001, 0.5, 3.0, 12.0]))

    def settle(self) -> None:
        self.world.settle()


def explore(walks: int, steps: int) -> list[RightsWorld]:
    """Goes some walks, with the seeds 0, 1, 2 and so on. Returns their worlds."""
    worlds = []
    for seed in range(walks):
        walk = RightsWalk(seed)
        try:
            walk.go(steps)
        except Exception as error:
            raise AssertionError(f"{error}\nReplay: RightsWalk({seed}).go({steps})") from error
        worlds.append(walk.world)
    return worlds


@pytest.fixture(autouse=True)
def small(simulation: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation's clock, and a short memory."""
    for module in (disconnect, revocations):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(revocations, "MAX_KEPT", 6)
    monkeypatch.setattr(revocations, "KEPT", 20.0)


@pytest.mark.parametrize("steps", [60, 250])
def test_random_walks_find_no_event_after_its_right_has_ended(steps: int) -> None:
    worlds = explore(60_000 // steps, steps)
    streams = [stream for world in worlds for stream in world.streams]
    reasons = [reason for stream in streams for reason in stream.reasons]
    # The walks have tried what they must try.
    assert sum(world.caught for world in worlds) > 1000
    assert sum(len(stream.got) for stream in streams) > 1000
    assert sum(len(stream.joined) for stream in streams) > 300
    for reason in ("revoked", "recheck", "a"):
        assert reasons.count(reason) > 30


class Recorded(UserStream):
    """A stream that keeps its last frame."""

    def __init__(self, connection: str, user: str, channels: tuple[str, ...]) -> None:
        Stream.__init__(self, connection, user, channels)
        self.last = b""

    def write(self, chunk: bytes) -> None:
        raise AssertionError(chunk)

    def end(self, frame: bytes) -> None:
        self.last = frame


def _nothing(self: Revocations, *arguments: Any) -> list[Any]:
    return []


def _alive(self: Ticket, broker: Any, known: Any) -> bool:
    return False


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Revocations, "since_position", _nothing),
        (Revocations, "of_new", _nothing),
        (Ticket, "is_revoked", _alive),
        (Disconnector, "_revoke_late", lambda self, arguments, at: []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_walks_find_each_of_these_faults(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(AssertionError, match=r"after the right|still has"):
        explore(2000, 120)


def test_a_stream_waits_for_earlier_revocations_even_if_its_events_are_here() -> None:
    """The events lie on another shard than the commands, and arrive first."""
    channel = next(name for name in ("a", "b", "c", "d") if shard_of(name, 2) == 1)
    brokers = [Primary(POLICIES, "e0"), Primary(POLICIES, "e1")]
    worker = Worker(brokers)
    began = CLOCK.now - TICK
    arguments = {"user_id": "ada", "channel": None, "reason": "revoked"}
    brokers[0].publish([command_publication(Command(REVOKE, arguments))])
    brokers[1].publish([Publication(make_event("secret").encode(), (channel,))])
    stream = Recorded("s1", "ada", (channel,))
    stream.grant = Grant(user_id="ada", channels=(channel,), began=began, can_change=True)
    recovery = worker.hub.recovery(stream.subscribed, StartPoint(EARLIEST))
    worker.hub.open(stream)
    commands, events = worker.threads
    for threads, got in ((events, b""), (commands, b"")):
        for _ in range(3):
            threads.read(Turn())
            threads.fetch_all()
            threads.read(Turn())
            worker.run() if threads is commands else worker.dispatch()
            worker.deliver()
            assert worker.hub.follow(stream, recovery, 0) == got
    assert b'"reason":"revoked"' in stream.last


def test_a_first_stream_whose_revocation_may_be_gone_from_the_broker_connects_again() -> None:
    broker = Primary(keeping(2, 1000.0), "e0")
    worker = Worker([broker])
    began = CLOCK.now - TICK
    for user in ("ada", "bob", "bob"):
        arguments = {"user_id": user, "channel": None, "reason": "revoked"}
        broker.publish([command_publication(Command(REVOKE, arguments))])
    stream = Recorded("s1", "ada", ("a",))
    stream.grant = Grant(user_id="ada", channels=("a",), began=began, can_change=True)
    worker.hub.open(stream)
    for _ in range(3):
        worker.run()
    assert b'"reason":"recheck"' in stream.last
    assert b'"reconnect":true' in stream.last
