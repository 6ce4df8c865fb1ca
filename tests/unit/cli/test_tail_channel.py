"""`flask sse tail --channel`: what it reports of channels of a broker in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from flask_sse_push.brokers.base import Link, LinkMessage
from flask_sse_push.cli.tail.channel import ChannelSource
from flask_sse_push.cli.tail.news import Disconnected, Heartbeat, Missed, News, Opened, Received
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.protocol.cursor import EARLIEST, MAX_ID, Cursor
from flask_sse_push.protocol.entry import Publication
from tests.support.deadline import eventually
from tests.support.policies import keeping
from tests.support.stepping import Primary

GONE = "the broker lost its data, or the cursor came from another broker"


class Following:
    """A broker, and a source that follows its channels `a` and `b`."""

    def __init__(self) -> None:
        self.broker = Primary(keeping(3, 3600.0))
        self.broker._epoch = "e0"
        self.news: list[News] = []

    def publish(self, text: str, *channels: str) -> Cursor:
        return self.broker.publish([Publication(f"data: {text}\n\n".encode(), channels)])[0]

    @contextmanager
    def following(self, since: str = "", last: int = 0) -> Iterator[ChannelSource]:
        settings = Settings(probe=0.05)
        source = ChannelSource(self.broker, ["a", "b"], since, last, settings, self.news.append)
        thread = threading.Thread(target=source.run)
        thread.start()
        try:
            yield source
        finally:
            source.close()
            thread.join(10)
            assert not thread.is_alive()

    def of(self, *kinds: type) -> list[News]:
        return [event for event in self.news if isinstance(event, kinds)]

    @property
    def came(self) -> list[tuple[str, str]]:
        return [(event.channel, event.data) for event in self.news if isinstance(event, Received)]

    def has(self, condition: Callable[[], bool]) -> None:
        eventually(condition, 10)


def test_live_events_come_once_with_the_first_of_their_channels_that_is_followed() -> None:
    tail = Following()
    tail.publish("before", "a")
    with tail.following():
        tail.has(lambda: tail.of(Opened) == [Opened(False, ("a", "b"))])
        cursor = tail.publish("both", "other", "b", "a")
        tail.publish("other", "other")
        tail.publish("one", "a")
        tail.has(lambda: tail.came == [("b", "both"), ("a", "one")])
        tail.has(lambda: bool(tail.of(Heartbeat)))
    assert next(event.id for event in tail.news if isinstance(event, Received)) == str(cursor)


@pytest.mark.parametrize(
    ("since", "last", "texts"),
    [(EARLIEST, 0, ["1", "2", "3", "4"]), ("", 2, ["3", "4"]), ("second", 0, ["3", "4"])],
)
def test_it_starts_at_a_cursor_or_with_the_newest_events(since: str, last: int, texts: list[str]) -> None:
    tail = Following()
    cursors = [str(tail.publish(text, name)) for text, name in zip("1234", "abab", strict=True)]
    with tail.following(cursors[1] if since == "second" else since, last):
        tail.has(lambda: [text for _, text in tail.came] == texts)
    assert tail.of(Missed) == []
    assert tail.of(Opened) == [Opened(since == "second", ("a", "b"))]


@pytest.mark.parametrize(
    ("since", "reason", "texts"),
    [
        ("odd", "the cursor did not come from this app", []),
        (str(Cursor("e0", MAX_ID)), "no event has this cursor yet", []),
        (str(Cursor("other", 5)), GONE, ["kept"]),
    ],
)
def test_a_cursor_that_cannot_be_resumed_is_reported(since: str, reason: str, texts: list[str]) -> None:
    tail = Following()
    tail.publish("kept", "a")
    with tail.following(since):
        tail.has(lambda: tail.of(Missed) == [Missed(reason)])
        tail.publish("live", "b")
        tail.has(lambda: [text for _, text in tail.came] == [*texts, "live"])
    assert tail.of(Opened) == [Opened(False, ("a", "b"))]


def test_events_that_are_no_longer_kept_are_reported_and_those_that_are_follow() -> None:
    tail = Following()
    first = str(tail.publish("first", "a"))
    for number in range(5):
        tail.publish(str(number), "a")
    tail.publish("b", "b")
    with tail.following(first):
        tail.has(lambda: tail.came == [("a", "2"), ("a", "3"), ("a", "4"), ("b", "b")])
    assert tail.of(Missed) == [Missed("a: the broker no longer has the missed events")]


def test_the_loss_of_all_data_is_reported_and_all_that_came_since_follows() -> None:
    tail = Following()
    with tail.following():
        tail.has(lambda: bool(tail.of(Opened)))
        tail.publish("old", "a")
        tail.has(lambda: tail.came == [("a", "old")])
        tail.broker.forget("e1")
        tail.publish("new", "b")
        tail.has(lambda: tail.of(Missed) == [Missed(GONE)])
        tail.publish("live", "a")
        tail.has(lambda: tail.came == [("a", "old"), ("b", "new"), ("a", "live")])


def test_a_failover_that_lost_events_is_reported_and_no_event_comes_twice() -> None:
    tail = Following()
    with tail.following():
        tail.has(lambda: bool(tail.of(Opened)))
        tail.publish("kept", "a")
        copy = tail.broker.copy()
        tail.publish("undone", "a")
        tail.has(lambda: len(tail.came) == 2)
        tail.broker.promote(copy, "e1")
        tail.publish("new", "b")
        tail.has(lambda: tail.of(Missed) == [Missed("a failover of the broker lost events")])
        tail.publish("live", "a")
        tail.has(lambda: [text for _, text in tail.came] == ["kept", "undone", "new", "live"])


def test_after_a_broken_link_it_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(timeout: float) -> list[LinkMessage]:
        raise BrokerUnavailable("cut")

    tail = Following()
    links: list[Link] = []
    make_link = tail.broker.link

    def link(inbox: str) -> Link:
        links.append(make_link(inbox))
        return links[-1]

    monkeypatch.setattr(tail.broker, "link", link)
    with tail.following():
        tail.has(lambda: bool(tail.of(Opened)))
        tail.publish("before", "a")
        tail.has(lambda: tail.came == [("a", "before")])
        monkeypatch.setattr(links[0], "read", fail)
        tail.publish("meanwhile", "b")
        tail.has(lambda: tail.of(Disconnected, Opened)[1:] != [])
        tail.has(lambda: tail.came == [("a", "before"), ("b", "meanwhile")])
        tail.has(lambda: len(tail.of(Disconnected, Opened)) > 2)
    assert tail.of(Disconnected, Opened)[1:] == [
        Disconnected("the link to the broker broke", 0.0),
        Opened(True, ("a", "b")),
    ]
