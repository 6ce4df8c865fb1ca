"""Channels joined and left while the stream is open, over every broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.base import Broker
from flask_sse_push.config import Settings
from flask_sse_push.hub.hub import Hub
from tests.support.deadline import eventually

from .conftest import MakeBroker
from .test_commands import Record, gets_commands

SETTINGS = Settings(linger=0.0, probe=1.0, max_channels=3)


def events(stream: Record) -> list[tuple[str, Any]]:
    """The events of a stream as (type, data), without heartbeats."""
    found = []
    for frame in stream.got.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        kind, data = fields.get("event", "message"), fields["data"]
        if kind != "sse.heartbeat":
            found.append((kind, json.loads(data) if kind.startswith("sse.") else data))
    return found


def changes(stream: Record) -> list[dict[str, Any]]:
    return [data for kind, data in events(stream) if kind == "sse.channels"]


def missed(stream: Record) -> list[str]:
    return [
        event["data"] for kind, data in events(stream) if kind == "sse.missed" for event in data["events"]
    ]


@pytest.fixture
def hub(broker: Broker) -> Iterator[Hub]:
    hub = Hub(broker, SETTINGS)
    yield hub
    hub.close()


@pytest.fixture
def announcer(broker: Broker) -> MessageAnnouncer:
    return MessageAnnouncer(broker, SETTINGS)


@pytest.fixture
def stream(hub: Hub) -> Record:
    stream = Record(hub, "one", "7", "a")
    eventually(lambda: gets_commands(hub))
    return stream


def test_a_stream_joins_and_leaves_and_gets_each_channel_while_it_has_it(
    hub: Hub, announcer: MessageAnnouncer, stream: Record
) -> None:
    announcer.publish("b before", channel="b")
    announcer.join("one", "b")
    eventually(lambda: len(changes(stream)) == 1)
    announcer.publish("b 1", channel="b")
    announcer.publish("a 1", channel="a")
    announcer.leave("one", ["a", "nothing"])
    announcer.publish("a 2", channel="a")
    eventually(lambda: len(changes(stream)) == 2)
    announcer.publish("a 3", channel="a")
    announcer.publish("b 2", channel="b")
    eventually(lambda: ("message", "b 2") in events(stream))
    assert changes(stream) == [
        {"channels": ["a", "b"], "joined": ["b"], "left": []},
        {"channels": ["b"], "joined": [], "left": ["a"]},
    ]
    got = [data for kind, data in events(stream) if kind == "message"]
    assert [text for text in got if text != "a 2"] == ["b 1", "a 1", "b 2"]
    assert stream.channels == ("b",)
    eventually(lambda: "a" not in hub._history_cache.caches)  # nobody listens to it any more


def test_events_after_a_cursor_are_sent_first_and_only_once(
    announcer: MessageAnnouncer, stream: Record
) -> None:
    cursor = announcer.publish("seen", channel="b")
    for n in range(5):
        announcer.publish(f"missed {n}", channel="b", type="note" if n == 4 else None)
    announcer.publish("by both", channel=["a", "b"])
    eventually(lambda: ("message", "by both") in events(stream))
    announcer.join("one", "b", since=cursor)
    eventually(lambda: changes(stream))
    announcer.publish("live", channel="b")
    eventually(lambda: ("message", "live") in events(stream))
    assert missed(stream) == [f"missed {n}" for n in range(5)]
    kinds = [kind for kind, _ in events(stream)]
    assert kinds == ["sse.open", "message", "sse.missed", "sse.channels", "message"]
    note = events(stream)[2][1]["events"][-1]
    assert note["type"] == "note"
    assert set(note) == {"type", "data", "id"}


def test_a_channel_can_start_with_its_newest_or_with_all_kept_events(
    announcer: MessageAnnouncer, stream: Record
) -> None:
    for n in range(5):
        announcer.publish(str(n), channel="b")
        announcer.publish(str(n), channel="c")
    announcer.join("one", "b", last=2)
    eventually(lambda: len(changes(stream)) == 1)
    assert missed(stream) == ["3", "4"]
    announcer.join("one", "c", since="earliest")
    eventually(lambda: len(changes(stream)) == 2)
    assert missed(stream)[2:] == ["0", "1", "2", "3", "4"]


def test_a_reset_names_only_the_joined_channel(announcer: MessageAnnouncer, stream: Record) -> None:
    announcer.join("one", "b", since="nonsense")
    eventually(lambda: changes(stream))
    resets = [data for kind, data in events(stream) if kind == "sse.reset"]
    assert resets == [{"channels": ["b"], "reason": "cursor"}]
    assert b"id: " not in stream.got.split(b"event: sse.reset")[0].rsplit(b"\n\n", 1)[1]


def test_too_many_channels_are_refused_by_an_error_event(announcer: MessageAnnouncer, stream: Record) -> None:
    announcer.join("one", ["b", "c", "d"])
    eventually(lambda: "sse.error" in dict(events(stream)))
    assert dict(events(stream))["sse.error"]["code"] == 1301
    announcer.change("one", ["b", "c", "d"], ["a"])
    eventually(lambda: changes(stream))
    assert changes(stream)[0]["channels"] == ["b", "c", "d"]


def test_a_stream_that_leaves_while_it_joins_leaves_nothing_behind(
    hub: Hub, announcer: MessageAnnouncer, stream: Record
) -> None:
    other = Record(hub, "other", "8", "z")
    announcer.join("one", "b", since="earliest")
    hub.leave(stream)
    eventually(lambda: set(hub._history_cache.caches) == {"z", "*", "!control"})
    assert not hub._channel_changes.under_way
    hub.leave(other)
    eventually(lambda: not hub._history_cache.caches)


def test_a_long_history_comes_in_chunks_each_with_its_cursor(make_broker: MakeBroker) -> None:
    broker = make_broker()
    settings = Settings(probe=1.0)
    announcer, hub = MessageAnnouncer(broker, settings), Hub(broker, settings)
    try:
        for at in range(0, 300, 100):
            announcer.publish_many({"data": f"{at + n} {'x' * 1000}", "channel": "b"} for n in range(100))
        stream = Record(hub, "one", "7", "a")
        eventually(lambda: gets_commands(hub))
        announcer.join("one", "b", since="earliest")
        eventually(lambda: changes(stream))
        assert [int(text.split()[0]) for text in missed(stream)] == list(range(300))
        chunks = [data for kind, data in events(stream) if kind == "sse.missed"]
        assert len(chunks) >= 4
        assert all(chunk["cursor"] == chunk["events"][-1]["id"] for chunk in chunks)
    finally:
        hub.close()


def test_under_load_nothing_is_lost_or_doubled_by_joining_and_leaving(
    broker: Broker, hub: Hub, announcer: MessageAnnouncer
) -> None:
    streams = [Record(hub, f"s{n}", str(n), "a") for n in range(5)]
    eventually(lambda: gets_commands(hub))
    done = threading.Event()
    sent: list[list[str]] = []

    def publish() -> None:
        n = 0
        while not done.wait(0.0005):
            channels = [["a"], ["b"], ["a", "b"], ["c"]][n % 4]
            announcer.publish(str(n), channel=channels)
            sent.append(channels)
            n += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    for round in range(1, 21):
        for stream in streams:
            if round % 2:
                cursor = stream.got.rsplit(b"\nid: ", 1)[-1].split(b"\n")[0].decode()
                announcer.join(stream.connection, "b", since=cursor)
            else:
                announcer.leave(stream.connection, "b")
        for stream in streams:
            eventually(lambda stream=stream, round=round: len(changes(stream)) == round)  # type: ignore[misc]
    done.set()
    publisher.join()
    announcer.publish("end", channel="a")
    for stream in streams:
        eventually(lambda stream=stream: ("message", "end") in events(stream))  # type: ignore[misc]
        got = [data for kind, data in events(stream) if kind == "message"][:-1] + missed(stream)
        assert len(got) == len(set(got)), "doubled"
        of_a = [int(n) for n in got if "a" in sent[int(n)]]
        expected = [n for n, channels in enumerate(sent) if "a" in channels]
        assert sorted(of_a) == [n for n in expected if n >= min(of_a)], "lost"
        assert not [n for n in got if sent[int(n)] == ["c"]]
        inside = _while_joined(stream)
        of_b = {n for n, channels in enumerate(sent) if "b" in channels}
        for first, last in inside:
            assert {n for n in of_b if first <= n <= last} <= {int(n) for n in got}, "lost while joined"


def _while_joined(stream: Record) -> Iterator[tuple[int, int]]:
    """For each period in which the stream had channel b: the first and the last event it got."""
    numbers: list[int] = []
    joined = False
    for kind, data in events(stream):
        if kind == "sse.channels":
            if joined and numbers:
                yield numbers[0], numbers[-1]
            joined, numbers = "b" in data["channels"], []
        elif kind == "message" and data != "end":
            numbers.append(int(data))
