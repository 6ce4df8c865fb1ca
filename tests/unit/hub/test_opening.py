"""How streams catch up beside others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flask_sse_push.brokers.announcer import MessageAnnouncer
from flask_sse_push.brokers.base import ENTRY_COST
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub import pace
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.opening import MUCH
from flask_sse_push.transports.generator import GeneratorStream
from tests.support.policies import keeping
from tests.unit.hub.test_pace import Clock


@pytest.mark.parametrize(("sent", "rests"), [(MUCH, 0), (MUCH + 1, 3)])
def test_only_streams_that_got_much_rest_between_their_chunks(
    sent: int, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 1000.0, sleep=slept.append)
    hub = Hub(MemoryBroker(keeping(10, 60.0)), Settings())
    monkeypatch.setattr(pace, "time", clock)
    for name in "abc":
        stream = GeneratorStream(name, None, ("a",), Settings())
        stream.bytes, stream.closing = sent, True
        assert hub.follow(stream, hub.recovery(("a", "*"), StartPoint()), 0) == b""
    assert slept == pytest.approx([n * MUCH / pace.HIGHEST for n in range(rests)], abs=1e-6)


def test_small_events_count_more_than_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    broker = MemoryBroker(keeping(4000, 60.0))
    announcer = MessageAnnouncer(broker, Settings())
    for first in range(0, 4000, 1000):
        announcer.publish_many([{"data": n, "channel": "a"} for n in range(first, first + 1000)])
    hub = Hub(broker, Settings())
    stream = GeneratorStream("c", None, ("a",), Settings())
    hub.open(stream)
    recovery, began = hub.recovery(("a", "*"), StartPoint("earliest")), clock.now
    while hub.follow(stream, recovery, 10) is not None:
        pass
    stream.closing = True
    hub.follow(stream, recovery, 0)  # rests for the last chunk
    hub.close()
    announcer.close()
    assert stream.events == 4000
    # The first chunks of a stream go out without a rest.
    assert clock.now - began > 4000 * ENTRY_COST / pace.HIGHEST / 2
