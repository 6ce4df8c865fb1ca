"""Who is in a channel, over every broker and two workers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.counts import MAX_COUNTS, CountChange, CountKey
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.hub.hub import Hub
from flask_sse_push.presence import worker_counts
from flask_sse_push.presence.presence import Presence, table
from flask_sse_push.presence.worker_counts import WorkerCounts
from tests.support.deadline import eventually

from .test_commands import Record, gets_commands

ROOMS = Settings(presence_channels=("room:*",)).policies


class OpenStream(Record):
    """A stream that is open and does not get events yet."""

    def follow(self) -> None:
        pass


MakeWorker = Callable[..., Hub]


@pytest.fixture
def make_worker(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorker]:
    """Makes hubs that count the channels `room:*`."""
    monkeypatch.setattr(worker_counts, "GATHER", 0.02)
    with ExitStack() as stack:

        def make(grace: float = 0.3) -> Hub:
            hub: Hub
            one = WorkerCounts(broker.counts, lambda: len(hub))
            presence = Presence(one, broker, ROOMS, grace)
            hub = Hub(broker, Settings(), listeners=[one, presence])
            stack.callback(one.close)
            stack.callback(hub.close)
            return hub

        yield make


def presence_events(stream: Record) -> list[dict[str, Any]]:
    """Returns the `sse.presence` events that the stream got."""
    frames = [frame for frame in stream.got.decode().split("\n\n") if "event: sse.presence" in frame]
    return [json.loads(frame.split("data: ", 1)[1]) for frame in frames]


def who(broker: Broker, channel: str = "room:1") -> list[str]:
    return sorted(broker.counts.names(table(channel), 100))


def test_tabs_of_one_user_on_two_workers_count_once(make_worker: MakeWorker, broker: Broker) -> None:
    one, two = make_worker(), make_worker()
    watcher = Record(one, "w", "watcher", "room:1", "other")
    eventually(lambda: who(broker) == ["watcher"])
    tabs = [Record(hub, f"ann-{at}", "ann", "room:1") for at, hub in enumerate([one, one, two])]
    Record(two, "nobody", None, "room:1")
    eventually(lambda: who(broker) == ["ann", "watcher"])
    assert broker.counts.size(table("room:1")) == 2
    assert broker.counts.size(table("other")) == 0
    for tab in tabs[:2]:
        tab.hub.leave(tab)
    bob = Record(two, "bob", "bob", "room:1")
    eventually(lambda: who(broker) == ["ann", "bob", "watcher"])
    tabs[2].hub.leave(tabs[2])
    eventually(lambda: who(broker) == ["bob", "watcher"])
    eventually(lambda: len(presence_events(watcher)) >= 3 and presence_events(watcher)[-1]["leave"])
    moves = [
        (event["join"], event["leave"], event["count"])
        for event in presence_events(watcher)
        if event["join"] != ["watcher"]
    ]
    assert moves == [(["ann"], [], 2), (["bob"], [], 3), ([], ["ann"], 2)]
    assert {event["channel"] for event in presence_events(watcher)} == {"room:1"}
    assert not bob.ended


def test_a_page_that_is_reloaded_causes_no_event(make_worker: MakeWorker, broker: Broker) -> None:
    grace = 1.5
    one, two = make_worker(grace), make_worker(grace)
    watcher = Record(one, "w", "watcher", "room:1")
    before = Record(one, "ann-1", "ann", "room:1")
    eventually(lambda: any("ann" in event["join"] for event in presence_events(watcher)))
    count = len(presence_events(watcher))
    one.leave(before)
    Record(two, "ann-2", "ann", "room:1")
    until = time.monotonic() + grace + 0.5
    while time.monotonic() < until:
        assert who(broker) == ["ann", "watcher"]
        time.sleep(0.02)
    assert len(presence_events(watcher)) == count


def test_channels_joined_and_left_later_count_too(make_worker: MakeWorker, broker: Broker) -> None:
    hub = make_worker()
    announcer = MessageAnnouncer(broker, Settings())
    Record(hub, "ann", "ann", "lobby")
    eventually(lambda: gets_commands(hub))
    announcer.join("ann", ["room:1", "other"])
    eventually(lambda: who(broker) == ["ann"])
    announcer.leave("ann", "room:1")
    eventually(lambda: who(broker) == [])
    announcer.join("ann", "room:1")
    eventually(lambda: who(broker) == ["ann"])
    announcer.disconnect(user_id="ann")
    eventually(lambda: who(broker) == [])


def test_users_of_a_killed_worker_leave_when_its_lease_expires(
    make_worker: MakeWorker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_counts, "RENEW", 0.2)
    watcher = Record(make_worker(), "w", "watcher", "room:1")
    broker.counts.report("killed", 1, {CountKey(table("room:1"), "ann"): 2}, 1.5)
    assert "ann" in who(broker)
    eventually(lambda: who(broker) == ["watcher"])
    eventually(lambda: [event["leave"] for event in presence_events(watcher)][-1:] == [["ann"]])


def test_a_user_who_joins_elsewhere_before_the_leave_is_published_is_there_in_the_end(
    make_worker: MakeWorker, broker: Broker
) -> None:
    watcher = Record(make_worker(), "w", "watcher", "room:1")
    eventually(lambda: who(broker) == ["watcher"])
    ann = CountKey(table("room:1"), "ann")
    broker.counts.report("other", 1, {ann: 1}, 60)
    late = WorkerCounts(broker.counts)
    presence = Presence(late, broker, ROOMS, 60)
    presence._note_changes([CountChange(ann, 1, 0)])
    presence._note_changes(())  # the end of the round, when events are published
    eventually(lambda: any(event["join"] == ["ann"] for event in presence_events(watcher)))
    moves = [
        (event["join"], event["leave"]) for event in presence_events(watcher) if event["join"] != ["watcher"]
    ]
    assert moves == [([], ["ann"]), (["ann"], [])]
    late.close()


def test_many_users_who_join_at_once_are_named_in_few_events(
    make_worker: MakeWorker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_counts, "GATHER", 0.5)
    hub = make_worker()
    watcher = Record(hub, "w", "watcher", "room:1")
    streams = [OpenStream(hub, f"c{n}", f"u{n}", "room:1") for n in range(250)]
    eventually(lambda: broker.counts.size(table("room:1")) == 251)
    eventually(lambda: len({user for event in presence_events(watcher) for user in event["join"]}) == 251)
    assert all(len(event["join"]) <= 100 for event in presence_events(watcher))
    assert len(streams) == 250
    assert len(presence_events(watcher)) < 30


def test_reading_a_count_of_5000_takes_less_than_a_millisecond_of_redis(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    broker = connect_broker(Settings(broker_url=redis_url, prefix=prefix))
    users = [CountKey(table("room:1"), f"user-{n}") for n in range(5000)]
    for serial, at in enumerate(range(0, 5000, MAX_COUNTS), 1):
        broker.counts.report("w1", serial, dict.fromkeys(users[at : at + MAX_COUNTS], 1), 60)
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        for _ in range(100):
            assert broker.counts.size(table("room:1")) == 5000
        usec = client.info("commandstats")["cmdstat_hlen"]["usec_per_call"]
        print(f"a count of 5000 users: {usec} µs of Redis's time")
        assert usec < 1000
    broker.close()
