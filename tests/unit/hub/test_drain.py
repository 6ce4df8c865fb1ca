"""How long a process waits for its streams, and which streams a drain closes. Time is not real here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest

from flask_sse_push.hub import drain
from flask_sse_push.hub.drain import LAST_READ, LONGEST_WAIT, RESERVE, Drain, wait_for_streams
from flask_sse_push.hub.stream import Stream

STREAMS = cast("list[Stream]", list(range(10)))


class Clock:
    """A clock that only `sleep` moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """Returns a function that lets a process wait for an endless stream, and returns how long it waited."""

    def waited(drain_window: float, killed_after: float = math.inf) -> float:
        clock = Clock()
        monkeypatch.setattr(drain, "time", clock)
        monkeypatch.setattr(drain._Process, "longest_drain", 0.0)
        monkeypatch.setattr(drain._Process, "killed_after", killed_after)
        Drain(drain_window, lambda: True)
        began = clock.now
        wait_for_streams()
        return clock.now - began

    for name in ("longest_drain", "killed_after", "exiting", "watched"):
        monkeypatch.setattr(drain._Process, name, getattr(drain._Process, name))
    monkeypatch.setattr(drain, "open_streams", [lambda: 1])
    monkeypatch.setattr(drain, "at_exit", [])
    return waited


def test_a_process_waits_as_long_as_the_drain_takes(process: Callable[..., float]) -> None:
    assert process(0.5) == pytest.approx(LONGEST_WAIT, abs=0.1)
    assert process(45.0) == pytest.approx(45.0 + LAST_READ, abs=0.1)


def test_a_process_ends_before_its_server_kills_it(process: Callable[..., float]) -> None:
    assert process(45.0, killed_after=30.0) == pytest.approx(30.0 - RESERVE, abs=0.1)
    assert process(0.5, killed_after=1.0) == 0.0


def test_the_drain_closes_all_streams_before_the_server_kills_the_process(
    process: Callable[..., float],
) -> None:
    process(0.5, killed_after=30.0)
    slow = Drain(60.0, lambda: True)
    assert len(slow.leaving(STREAMS, 0.0)) == 0
    assert len(slow.leaving(STREAMS, 14.0)) == 5
    assert len(slow.leaving(STREAMS, 28.0)) == 10


def test_a_drain_is_over_when_the_clients_had_time_to_read_their_last_frame() -> None:
    short = Drain(0.5, lambda: True)
    assert not short.is_over(1000.0)
    short.leaving(STREAMS, 0.0)
    assert not short.is_over(0.5 + LAST_READ)
    assert short.is_over(0.6 + LAST_READ)
