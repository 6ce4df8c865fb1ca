"""How streams catch up beside others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flask_sse_push.brokers.base import Bounds
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub import pace
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.opening import MUCH
from flask_sse_push.transports.generator import GeneratorStream


@pytest.mark.parametrize(("sent", "rests"), [(MUCH, 0), (MUCH + 1, 3)])
def test_only_streams_that_got_much_rest_between_their_chunks(
    sent: int, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 1000.0, sleep=slept.append)
    hub = Hub(MemoryBroker(Bounds(10, 60.0)), Settings())
    monkeypatch.setattr(pace, "time", clock)
    for name in "abc":
        stream = GeneratorStream(name, None, ("a",), Settings())
        stream.bytes, stream.closing = sent, True
        assert hub.follow(stream, hub.recovery(("a", "*"), StartPoint()), 0) == b""
    assert slept == pytest.approx([n * MUCH / pace.HIGHEST for n in range(rests)], abs=1e-6)
