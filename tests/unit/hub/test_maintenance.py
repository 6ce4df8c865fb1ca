"""The wheel that finds the streams which need a heartbeat. The tests pass the time as a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.config import Settings
from flask_sse_push.hub.group import Group
from flask_sse_push.hub.maintenance import HeartbeatWheel, silent_since
from flask_sse_push.hub.stream import Stream
from flask_sse_push.transports.generator import GeneratorStream
from tests.support.simulation import World
from tests.support.stepping import CLOCK, SETTINGS


def new_stream() -> Stream:
    """A stream that got nothing yet."""
    return GeneratorStream("c", None, ("sse",), Settings())


@pytest.mark.parametrize(("interval", "slot"), [(15.0, 0.25), (1.0, 0.25), (0.4, 0.1), (0.05, 0.0125)])
def test_a_slot_is_a_quarter_of_a_second_or_of_a_short_interval(interval: float, slot: float) -> None:
    assert HeartbeatWheel(interval).slot == pytest.approx(slot)


def test_a_stream_is_taken_out_when_it_was_silent_for_the_interval() -> None:
    wheel = HeartbeatWheel(15.0)
    stream = new_stream()
    wheel.add(stream, 100.0)
    assert wheel.take(100.0) == []
    assert wheel.take(114.9) == []
    assert wheel.take(115.0) == [stream]
    assert wheel.take(200.0) == []


def test_after_a_pause_the_streams_of_several_slots_come_together() -> None:
    wheel = HeartbeatWheel(1.0)
    streams = [new_stream() for _ in range(3)]
    for at, stream in enumerate(streams):
        wheel.add(stream, 100.0 + at)
    assert wheel.take(102.5) == streams[:2]
    assert wheel.take(103.0) == streams[2:]


def test_a_stream_that_is_overdue_when_added_comes_with_the_next_slot() -> None:
    wheel = HeartbeatWheel(1.0)
    other, late = new_stream(), new_stream()
    wheel.add(other, 100.0)
    assert wheel.take(101.0) == [other]
    wheel.add(late, 50.0)
    assert wheel.take(101.1) == []
    assert wheel.take(101.25) == [late]


def test_an_empty_wheel_keeps_up_with_the_time() -> None:
    wheel = HeartbeatWheel(1.0)
    assert wheel.take(1000.0) == []
    stream = new_stream()
    wheel.add(stream, 10.0)
    assert wheel.take(999.9) == []
    assert wheel.take(1000.0) == [stream]


def test_many_streams_are_taken_out_in_portions_and_a_new_stream_waits_for_the_next_slot() -> None:
    wheel = HeartbeatWheel(1.0)
    streams = [new_stream() for _ in range(5)]
    for stream in streams[:4]:
        wheel.add(stream, 100.0)
    assert wheel.take(101.0, 3) == streams[:3]
    wheel.add(streams[4], 50.0)
    assert wheel.take(101.0, 3) == streams[3:4]
    assert wheel.take(101.0, 3) == []
    assert wheel.take(101.25, 3) == streams[4:]


def test_streams_that_open_shortly_after_each_other_get_their_heartbeats_together() -> None:
    wheel = HeartbeatWheel(15.0)
    streams = [new_stream() for _ in range(4)]
    for number, stream in enumerate(streams):
        wheel.add(stream, 100.0 + number / 4)
    assert wheel.take(115.0) == streams
    for stream in streams:
        wheel.add(stream, 115.1)
    assert wheel.take(129.9) == []
    assert wheel.take(130.0) == streams


@given(st.floats(0, 1e6), st.floats(0.05, 60), st.floats(0, 0.999))
def test_a_heartbeat_is_early_by_at_most_a_fifteenth_and_late_by_at_most_a_slot(
    since: float, interval: float, within: float
) -> None:
    wheel = HeartbeatWheel(interval)
    stream = new_stream()
    stream.written_at = since
    wheel.add(stream, since)
    now = since + within * wheel.slot
    while not wheel.take(now):
        assert now < since + 2 * interval + wheel.slot, "no heartbeat is due"
        now += wheel.slot
    assert wheel.early <= max(interval / 15, wheel.slot) + 1e-6
    assert -wheel.early - 1e-6 <= now - (since + interval) <= wheel.slot + 1e-6
    assert wheel.is_silent(stream, now)


def test_silence_is_counted_from_the_last_chunk_to_the_stream_or_its_group() -> None:
    stream = new_stream()
    stream.written_at = 5.0
    assert silent_since(stream) == 5.0
    group = Group(("sse",), GeneratorStream)
    group.add(stream)
    group.written_at = 9.0
    assert silent_since(stream) == 9.0
    stream.written_at = 12.0
    assert silent_since(stream) == 12.0
    group.remove(stream)
    group.written_at = 20.0
    assert silent_since(stream) == 12.0


@pytest.mark.parametrize(("now", "silent"), [(113.0, False), (113.99, False), (114.0, True), (120.0, True)])
def test_a_stream_is_silent_within_the_wheels_precision(now: float, silent: bool) -> None:
    stream = new_stream()
    stream.written_at = 100.0
    assert HeartbeatWheel(15.0).is_silent(stream, now) is silent


@pytest.mark.usefixtures("simulation")
def test_a_round_may_begin_half_a_slot_early_and_never_later_than_a_slot() -> None:
    worker = World().workers[0]
    maintenance = worker.hub._dispatcher.maintenance
    assert maintenance.may_begin <= maintenance.must_begin <= CLOCK.now
    maintenance.round(CLOCK.now)
    slot = HeartbeatWheel(SETTINGS.heartbeat).slot
    assert maintenance.may_begin == pytest.approx(CLOCK.now + slot / 2)
    assert maintenance.must_begin == pytest.approx(CLOCK.now + slot)
