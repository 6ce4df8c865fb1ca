"""The link reader: which confirmations of subscriptions count."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from flask_sse_push.brokers.base import Link, LinkMessage, Subscribed
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.history import link
from flask_sse_push.history.link import LinkReader
from tests.support.policies import keeping


class Wire(Link):
    """A link that records what is sent and never replies."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []

    def subscribe(self, channels: Sequence[str]) -> None:
        self.sent.append(("subscribe", *channels))

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self.sent.append(("unsubscribe", *channels))

    def read(self, timeout: float) -> list[LinkMessage]:
        return []

    def close(self) -> None:
        pass


def test_of_several_subscriptions_of_a_channel_the_newest_one_counts() -> None:
    reader, wire = LinkReader(MemoryBroker(keeping(10, 60.0)), "inbox", lambda item: None, 10.0), Wire()
    for change in (reader.subscribe, reader.unsubscribe, reader.subscribe):
        change(["a"])
        reader._apply_changes(wire)
    assert wire.sent == [("subscribe", "a"), ("unsubscribe", "a"), ("subscribe", "a")]
    confirmation: list[LinkMessage] = [Subscribed("a")]
    # It belongs to the first SUBSCRIBE: events published before the second one may be missing.
    assert reader._note_replies(confirmation, 0.0) == []
    assert reader._unconfirmed
    assert reader._note_replies(confirmation, 0.0) == confirmation
    assert not reader._unconfirmed
    # This one is unexpected. The history cache gets it and reads all channels again.
    assert reader._note_replies(confirmation, 0.0) == confirmation


class Clock:
    """Takes the place of the module `time`. Notes when the reader lets other threads run."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rests.append(self.now)
        self.now += seconds


class Flood(Wire):
    """A link with a message at every read, which takes a millisecond of the time of `clock`."""

    def __init__(self, clock: Clock, reads: int) -> None:
        super().__init__()
        self._clock = clock
        self.left = reads

    def read(self, timeout: float) -> list[LinkMessage]:
        self._clock.now += 0.001
        self.left -= 1
        return [Subscribed("a")]


@pytest.mark.parametrize("dispatches_itself", [True, False])
def test_while_messages_come_without_a_pause_other_threads_run_too(
    monkeypatch: pytest.MonkeyPatch, dispatches_itself: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(link, "time", clock)
    flood = Flood(clock, 1000)
    reader = LinkReader(MemoryBroker(keeping(10, 60.0)), "inbox", lambda item: end(), 1e9)

    def end() -> None:
        end_after(flood)

    def end_after(flood: Flood) -> bool:
        if not flood.left:
            reader.close()
        return True

    if dispatches_itself:
        reader.dispatch_now = lambda item: end_after(flood)
    reader._read(flood)
    pauses = [after - before for before, after in pairwise([100.0, *clock.rests, clock.now])]
    assert max(pauses) < 0.02
    assert len(pauses) < 110, "a pause costs time, too"


def test_a_broker_that_refuses_links_is_asked_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example, its user may connect, but not subscribe."""
    clock = Clock()
    monkeypatch.setattr(link, "time", clock)
    broker = MemoryBroker(keeping(10, 60.0))
    reader = LinkReader(broker, "inbox", lambda item: None, 10.0)
    monkeypatch.setattr(broker, "link", lambda inbox: Refused(clock, reader))
    reader.run()
    assert reader.reconnects == 19
    assert clock.now - 100.0 > 8.0


class Refused(Wire):
    """A link that breaks at its first read."""

    def __init__(self, clock: Clock, reader: LinkReader) -> None:
        super().__init__()
        self._clock = clock
        self._reader = reader

    def read(self, timeout: float) -> list[LinkMessage]:
        self._clock.now += 0.001
        if self._reader.reconnects == 19:
            self._reader.close()
        raise BrokerUnavailable("no permission to subscribe")
