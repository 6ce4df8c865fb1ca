"""What a client is told while its stream waits for missed events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.transports import waiting
from flask_sse_push.transports.waiting import BROKER_TIMEOUT, LONGEST_WAIT, BrokerWait

CROWDED: Any = SimpleNamespace(waits_for_room=True)
UNANSWERED: Any = SimpleNamespace(waits_for_room=False)


@pytest.mark.parametrize(
    ("recovery", "text", "ends"),
    [(CROWDED, b"missed events to many clients", True), (UNANSWERED, b"broker does not answer", False)],
)
def test_a_client_is_told_why_it_waits_and_a_crowded_one_is_sent_away(
    recovery: Any, text: bytes, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(waiting, "time", clock)
    wait = BrokerWait(Settings(heartbeat=5.0))
    assert wait.frames(recovery) == b""
    clock.now += BROKER_TIMEOUT
    assert text in wait.frames(recovery)
    assert wait.frames(recovery) == b"", "the client is told once"
    clock.now += 5.0
    assert wait.frames(recovery).startswith(b":")
    assert not wait.is_too_long(recovery)
    clock.now += LONGEST_WAIT
    assert wait.is_too_long(recovery) is ends
    wait.ended()
    assert not wait.is_too_long(recovery)
    assert wait.frames(recovery) == b""


def test_a_short_stream_ends_when_its_client_has_been_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(waiting, "time", clock)
    at_once, later, never = (BrokerWait(Settings(), poll) for poll in (0.0, 20.0, None))
    assert not at_once.is_over()
    clock.now += BROKER_TIMEOUT
    for wait in (at_once, later, never):
        assert wait.frames(UNANSWERED)
    assert [at_once.is_over(), later.is_over(), never.is_over()] == [True, False, False]
    clock.now += 20.0
    assert [later.is_over(), never.is_over()] == [True, False]
