"""The thread of a run: what a generator that never waits leaves to others."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from flask_sse_push.brokers.announcer import MessageAnnouncer
from flask_sse_push.runs import producer
from flask_sse_push.runs.output import Output
from flask_sse_push.runs.producer import DONE, TURN, Producer


def test_a_generator_that_never_waits_lets_other_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1_000_000))
    sleeps: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: next(ticks) * TURN / 10, sleep=sleeps.append)
    monkeypatch.setattr(producer, "time", clock)
    announcer = MessageAnnouncer.from_url("memory://")
    output = Output(announcer, "run:1", 1000)
    run = Producer("k", "1", "run:1", output, contextlib.ExitStack(), "worker", lambda: None)
    run.run(["x"] * 1000, contextlib.nullcontext)
    announcer.close()
    assert run.end == (DONE, None)
    assert set(sleeps) == {0}
    assert 80 <= len(sleeps) <= 120
