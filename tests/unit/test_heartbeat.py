"""The wheel that says which streams are due for a heartbeat. Time is a number here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.config import Settings
from flask_sse_push.group import Group
from flask_sse_push.heartbeat import HeartbeatWheel, silent_since
from flask_sse_push.sink import Sink
from flask_sse_push.transports.generator import GeneratorSink


def new_sink() -> Sink:
    """A stream that nothing was sent to."""
    return GeneratorSink("c", None, ("sse",), Settings())


@pytest.mark.parametrize(("interval", "slot"), [(15.0, 0.25), (1.0, 0.25), (0.4, 0.1), (0.05, 0.0125)])
def test_a_slot_is_a_quarter_of_a_second_or_of_a_short_interval(interval: float, slot: float) -> None:
    assert HeartbeatWheel(interval).slot == pytest.approx(slot)


def test_a_stream_is_looked_at_when_it_was_silent_for_the_interval() -> None:
    wheel = HeartbeatWheel(15.0)
    sink = new_sink()
    wheel.add(sink, 100.0)
    assert wheel.turn(100.0) == []
    assert wheel.turn(114.9) == []
    assert wheel.turn(115.0) == [sink]
    assert wheel.turn(200.0) == []


def test_streams_of_several_slots_come_together_after_a_pause() -> None:
    wheel = HeartbeatWheel(1.0)
    sinks = [new_sink() for _ in range(3)]
    for at, sink in enumerate(sinks):
        wheel.add(sink, 100.0 + at)
    assert wheel.turn(102.5) == sinks[:2]
    assert wheel.turn(103.0) == sinks[2:]


def test_a_stream_that_is_overdue_when_added_comes_with_the_next_slot() -> None:
    wheel = HeartbeatWheel(1.0)
    other, late = new_sink(), new_sink()
    wheel.add(other, 100.0)
    assert wheel.turn(101.0) == [other]
    wheel.add(late, 50.0)
    assert wheel.turn(101.1) == []
    assert wheel.turn(101.25) == [late]


def test_an_empty_wheel_keeps_up_with_the_time() -> None:
    wheel = HeartbeatWheel(1.0)
    assert wheel.turn(1000.0) == []
    sink = new_sink()
    wheel.add(sink, 10.0)
    assert wheel.turn(999.9) == []
    assert wheel.turn(1000.0) == [sink]


@given(st.floats(0, 1e6), st.floats(0.05, 60), st.floats(0, 0.999))
def test_a_heartbeat_is_at_most_a_slot_early_or_late(since: float, interval: float, within: float) -> None:
    wheel = HeartbeatWheel(interval)
    sink = new_sink()
    sink.touched = since
    wheel.add(sink, since)
    now = since + within * wheel.slot
    while not wheel.turn(now):
        now += wheel.slot
    assert -1e-6 <= now - (since + interval) + wheel.slot <= 2 * wheel.slot + 1e-6


def test_silence_is_counted_from_the_last_chunk_to_the_stream_or_its_group() -> None:
    sink = new_sink()
    sink.touched = 5.0
    assert silent_since(sink) == 5.0
    group = Group(("sse",), GeneratorSink)
    group.add(sink)
    group.touched = 9.0
    assert silent_since(sink) == 9.0
    sink.touched = 12.0
    assert silent_since(sink) == 12.0
    group.remove(sink)
    group.touched = 20.0
    assert silent_since(sink) == 12.0


@pytest.mark.parametrize(("now", "silent"), [(114.0, False), (114.74, False), (114.75, True), (120.0, True)])
def test_a_stream_is_silent_within_the_wheels_precision(now: float, silent: bool) -> None:
    sink = new_sink()
    sink.touched = 100.0
    assert HeartbeatWheel(15.0).silent_for(sink, now) is silent
