"""The link reader: which confirmations of subscriptions count."""

from __future__ import annotations

from collections.abc import Sequence

from flask_sse_push.brokers.base import Link, LinkMessage, Subscribed
from flask_sse_push.brokers.memory import MemoryBroker
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
