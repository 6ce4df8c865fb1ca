"""The delivery promise under every order of steps: no stream loses an event, or gets one twice or too late.

Links break and lose messages, replies come late or never, a read returns any part of what arrived, history is
trimmed and expires, lists lose entries, the broker loses all data, a lagging replica takes over. Clients send
every kind of cursor, leave, and return to another worker with other channels. An account of what each stream
must get reads every frame; see tests/README.md.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.command import COMMAND_CHANNEL
from tests.support.simulation import KINDS, NAMES, WAITS, Arrival, World
from tests.support.stepping import ALL, CLOCK, KEPT, ShardThreads, Turn
from tests.support.walk import Walk, explore

Strategy = st.SearchStrategy[Any]

channel_sets: Strategy = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple)
some_events: Strategy = st.lists(
    st.tuples(
        channel_sets | st.just((BROADCAST,)),
        st.just(()) | st.sampled_from([("k0",), ("uk1",)]),
        st.sampled_from([None, None, None, 0.0, 1.0]),
    ),
    min_size=1,
    max_size=3,
)
some_names: Strategy = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
clients: Strategy = st.integers(0, 3)
workers: Strategy = st.integers(0, 1)
few: Strategy = st.sampled_from([ALL, 0, 1, 2])
waits: Strategy = st.sampled_from(WAITS)
starts: Strategy = st.sampled_from(KINDS)
arrivals: Strategy = st.builds(Arrival, clients, workers, channel_sets, starts, waits, st.booleans())


class PromiseMachine(RuleBasedStateMachine):
    """Hypothesis is the scheduler: it looks for steps that break the promise, and shortens them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(settled=st.booleans())
    def begin(self, settled: bool) -> None:
        if settled:
            self.world.populate()

    @rule(events=some_events)
    def publish(self, events: list[tuple[tuple[str, ...], tuple[str, ...], float | None]]) -> None:
        self.world.publish(events)

    @rule(arrival=arrivals)
    def open(self, arrival: Arrival) -> None:
        self.world.open(arrival)

    @rule(client=clients, pieces=st.sampled_from([1, 9]))
    def follow(self, client: int, pieces: int) -> None:
        self.world.follow(client, pieces)

    @rule(client=clients, unread=st.sampled_from([0, 1, 3]))
    def leave(self, client: int, unread: int) -> None:
        self.world.clients[client].leave(unread)

    @rule(client=clients)
    def disconnect(self, client: int) -> None:
        self.world.disconnect(client)

    @rule(client=clients, join=some_names, leave=some_names, kind=starts)
    def change(self, client: int, join: tuple[str, ...], leave: tuple[str, ...], kind: str) -> None:
        self.world.change(client, join, leave, kind)

    @rule(worker=workers, commands=few, signals=few)
    def read(self, worker: int, commands: int, signals: int) -> None:
        self.world.threads(worker).read(Turn(commands, signals))

    @rule(worker=workers, signals=few, end=st.sampled_from(["cut", "silent"]))
    def lose_the_link(self, worker: int, signals: int, end: str) -> None:
        self.world.threads(worker).read(Turn(ALL, signals, end))

    @rule(worker=workers)
    def reopen(self, worker: int) -> None:
        self.world.threads(worker).reopen()

    @rule(worker=workers, lose=st.sampled_from([False, False, False, True]))
    def fetch(self, worker: int, lose: bool) -> None:
        self.world.threads(worker).fetch(lose=lose)

    @rule(worker=workers, items=few)
    def dispatch(self, worker: int, items: int) -> None:
        self.world.workers[worker].dispatch(items)

    @rule(worker=workers)
    def deliver(self, worker: int) -> None:
        self.world.workers[worker].deliver(1)

    @rule(worker=workers)
    def run(self, worker: int) -> None:
        self.world.workers[worker].run()

    @rule()
    def run_all(self) -> None:
        self.world.run_all()

    @rule(worker=workers)
    def probe(self, worker: int) -> None:
        self.world.threads(worker).probe()

    @rule(worker=workers, reachable=st.booleans())
    def reach(self, worker: int, reachable: bool) -> None:
        self.world.threads(worker).gate.reachable = reachable

    @rule(worker=workers, seconds=st.sampled_from([0.5, 1.5, 3.0, 12.0]))
    def tick(self, worker: int, seconds: float) -> None:
        self.world.tick(worker, seconds)

    @rule(micros=st.sampled_from([1, 100, 20_000_000, 70_000_000]))
    def time_passes(self, micros: int) -> None:
        CLOCK.micros += micros

    @rule(clock_back=st.booleans())
    def forget_all(self, clock_back: bool) -> None:
        self.world.forget_all(clock_back)

    @rule()
    def copy(self) -> None:
        self.world.copy()

    @rule()
    def fail_over(self) -> None:
        self.world.fail_over()

    @rule(
        name=st.sampled_from((*NAMES, BROADCAST, COMMAND_CHANNEL)),
        how=st.sampled_from(["all", "newest", "oldest"]),
    )
    def tamper(self, name: str, how: str) -> None:
        self.world.tamper(name, how)

    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        self.world.settle()


class HubWalk(Walk[World]):
    """The same steps, chosen at random."""

    names = NAMES
    kinds = KINDS
    steps: ClassVar[Mapping[str, float]] = {
        "publish": 18,
        "open": 8,
        "follow": 8,
        "leave": 4,
        "disconnect": 1.5,
        "change": 4,
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
        super().__init__(World(), chance)

    def threads(self) -> ShardThreads:
        return self.pick(list(self.world.all_threads()))

    def event_names(self) -> list[str]:
        if self.chance.random() < 0.9:
            return self.chance.sample(self.names, self.pick([1, 1, 2, 3]))
        return [BROADCAST]

    def publish(self) -> None:
        self.world.publish(self.events())

    def open(self) -> None:
        names, wait, gzip = self.stream(self.stream_names())
        client, worker = self.client(), self.chance.randrange(2)
        self.world.open(Arrival(client, worker, names, self.pick(self.kinds), wait, gzip))

    def forget_all(self) -> None:
        self.world.forget_all(self.chance.random() < 0.5)

    def copy(self) -> None:
        self.world.copy()

    def fail_over(self) -> None:
        self.world.fail_over()

    def tamper(self) -> None:
        self.world.tamper(self.tampered_name(), self.tampering())


pytestmark = pytest.mark.usefixtures("simulation")


def test_hypothesis_finds_no_way_to_break_the_promise() -> None:
    often = settings(
        max_examples=300,
        stateful_step_count=50,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(PromiseMachine, settings=often)


@pytest.mark.parametrize("steps", [50, 200])
def test_random_walks_find_no_way_to_break_the_promise(steps: int) -> None:
    explore(HubWalk, steps, total=40_000)


def test_a_failover_that_lost_nothing_is_no_reset() -> None:
    world = World()
    world.populate()
    world.publish([(["a", "b"], [], None)])
    world.run_all()
    world.copy()
    before = [client.stream.cursors[-1] for client in world.clients[:3]]
    world.fail_over()
    world.settle()
    world.publish([(["b"], [], None)])
    world.settle()
    streams = [client.stream for client in world.clients[:3]]
    assert [stream.resets for stream in streams] == [0, 0, 0]
    epochs = {str(cursor).split("-")[0] for cursor in before} | {
        str(s.cursors[-1]).split("-")[0] for s in streams
    }
    assert epochs == {"e0", "e1"}


def test_a_failover_that_lost_what_streams_had_got_is_a_reset() -> None:
    world = World()
    world.populate()
    world.publish([(["a", "b"], [], None)])
    world.run_all()
    world.fail_over()
    world.settle()
    assert [client.stream.resets for client in world.clients[:3]] == [1, 1, 1]


def listening_to_commands() -> World:
    """A world in which worker 0 has a stream, and so gets commands."""
    world = World()
    world.open(Arrival(3, 0, ("d",), "live"))
    world.settle()
    return world


def test_an_event_lost_by_one_channel_comes_with_another_that_is_joined_later() -> None:
    world = listening_to_commands()
    world.publish([(["a"], [], None)])
    world.clients[0].cursor = world.latest()
    world.publish([(["b", "c"], [], None)])
    world.tamper("c", "all")
    world.open(Arrival(0, 0, ("a", "c"), "own"))
    world.change(0, ["b"], ["c"], "own")
    world.settle()
    assert world.clients[0].stream.resets == 1
    assert world.clients[0].stream.account.has_got(2)


def test_an_event_that_was_trimmed_from_one_channel_comes_with_another() -> None:
    world = listening_to_commands()
    world.publish([(["a", "b"], [], None), *[(["a"], [], None)] * KEPT])
    world.open(Arrival(0, 0, ("a",), "earliest"))
    world.settle()
    assert not world.clients[0].stream.account.has_got(1)
    world.change(0, ["b"], [], "earliest")
    world.settle()
    assert world.clients[0].stream.account.has_got(1)


def test_an_event_lost_while_the_link_was_broken_comes_with_another_channel() -> None:
    world = listening_to_commands()
    world.open(Arrival(0, 0, ("a",), "live"))
    world.settle()
    world.publish([(["a", "b"], [], None)])
    world.settle()
    world.threads(0).read(Turn(0, 0, "cut"))
    world.publish([(["a", "b"], [], None)])
    world.tamper("a", "all")
    world.settle()
    stream = world.clients[0].stream
    assert (stream.resets, stream.account.has_got(1), stream.account.has_got(2)) == (1, True, False)
    world.change(0, ["b"], [], "earliest")
    world.settle()  # the client's account fails if the first one comes again
    assert stream.account.has_got(2)
