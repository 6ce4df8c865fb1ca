"""How fast streams catch up."""

from __future__ import annotations

import pytest

from flask_sse_push.hub import pace
from flask_sse_push.hub.pace import HIGHEST, LATE, LOWEST, Pace


class Clock:
    """A clock that goes on only while somebody sleeps, and `late` seconds further than planned."""

    def __init__(self) -> None:
        self.now, self.late = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def seconds_of(clock: Clock, made: Pace, size: int, times: int) -> float:
    began = clock.now
    for _ in range(times):
        made.rest(size)
    return clock.now - began


def test_streams_share_the_bytes_of_a_second(clock: Clock) -> None:
    made = Pace()
    made.rest(HIGHEST // 10)
    assert seconds_of(clock, made, HIGHEST // 10, 20) == pytest.approx(2)


def test_bytes_that_are_added_later_count_too(clock: Clock) -> None:
    made = Pace()
    made.rest(HIGHEST)
    made.add(-HIGHEST // 2)
    assert seconds_of(clock, made, HIGHEST // 2, 1) == pytest.approx(0.5)
    made.add(HIGHEST)
    assert seconds_of(clock, made, 1, 1) == pytest.approx(1.5)


def test_the_pace_falls_while_the_worker_is_late_and_rises_again(clock: Clock) -> None:
    made = Pace()
    clock.late = 2 * LATE
    seconds_of(clock, made, 65_536, 200)
    assert made.bytes_a_second == LOWEST
    clock.late = LATE / 2
    seconds_of(clock, made, 65_536, 100)
    assert made.bytes_a_second == HIGHEST


def test_one_delay_that_many_streams_notice_slows_them_down_once(clock: Clock) -> None:
    made = Pace()
    for _ in range(20):
        made._adapt(clock.now - 1, clock.now)
    assert made.bytes_a_second == pytest.approx(HIGHEST * pace.SLOWER)
