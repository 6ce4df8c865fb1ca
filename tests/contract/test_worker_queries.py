"""Queries to all workers, over every broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.base import Broker
from flask_sse_push.config import Settings
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.stream import Stream
from flask_sse_push.presence import query
from flask_sse_push.presence.query import Answer, WorkerQueries
from flask_sse_push.presence.worker_counts import WorkerCounts
from tests.support.deadline import eventually, stretched

from .test_commands import Record, gets_commands

MakeWorker = Callable[[], tuple[Hub, WorkerQueries]]


def kinds(what: str) -> Answer | None:
    """Returns what answers the kind of query `where`: which streams of a worker match."""
    return where if what == "where" else None


def where(streams: Sequence[Stream], details: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for stream in streams:
        yield {"connection": stream.connection, "asked": details}


@pytest.fixture
def make_worker(broker: Broker) -> Iterator[MakeWorker]:
    with ExitStack() as stack:

        def make() -> tuple[Hub, WorkerQueries]:
            hub: Hub
            one = WorkerCounts(broker.counts, lambda: len(hub))
            hub = Hub(broker, Settings(), listeners=[one])
            stack.callback(one.close)
            stack.callback(hub.close)
            announcer = MessageAnnouncer(broker, Settings())
            return hub, WorkerQueries(hub, broker.counts, announcer, lambda: one.name, kinds)

        yield make


@pytest.fixture
def workers(make_worker: MakeWorker, broker: Broker) -> tuple[list[Record], list[WorkerQueries]]:
    """Two workers with two streams each, and a third without any."""
    made = [make_worker() for _ in range(3)]
    streams = []
    for at, (hub, _) in enumerate(made[:2]):
        streams += [Record(hub, f"s{at}", "7", "a"), Record(hub, f"t{at}", None, "a", "b")]
        eventually(lambda hub=hub: gets_commands(hub))  # type: ignore[misc]
    eventually(lambda: len(broker.counts.workers()) == 2)
    return streams, [worker_queries for _, worker_queries in made]


def test_the_streams_of_all_workers_are_listed_by_any(
    workers: tuple[list[Record], list[WorkerQueries]],
) -> None:
    _, worker_queries = workers
    for one in worker_queries:
        began = time.monotonic()
        listed = one.connections()
        assert time.monotonic() - began < stretched(1.0)
        assert sorted(stream["connection"] for stream in listed) == ["s0", "s1", "t0", "t1"]
    one = worker_queries[2]
    assert sorted(stream["connection"] for stream in one.connections(user_id="7")) == ["s0", "s1"]
    assert sorted(stream["connection"] for stream in one.connections(channel="b")) == ["t0", "t1"]
    assert one.connections(channel="b", user_id="7") == []
    assert one.count() == 4
    assert one.count("b") == 2
    assert one.count("nothing") == 0
    assert [counters["streams"] for counters in one.stats()] == [2, 2]


def test_what_is_listed_of_a_stream(
    workers: tuple[list[Record], list[WorkerQueries]], broker: Broker
) -> None:
    streams, worker_queries = workers
    announcer = MessageAnnouncer(broker, Settings())
    for n in range(10):
        announcer.publish("x" * 100, channel="a", exclude="7" if n % 2 else None)
    announcer.publish("y", channel="b")
    announcer.publish("last", channel="a")
    for stream in streams:
        eventually(lambda stream=stream: b"last" in stream.got)  # type: ignore[misc]
    listed = {stream["connection"]: stream for stream in worker_queries[0].connections()}
    assert listed["t0"]["events"] == 12
    assert listed["s0"]["events"] == 6
    for stream in streams:
        facts = listed[stream.connection]
        assert facts["bytes"] == len(stream.got)
        assert facts["channels"] == list(stream.channels)
        assert facts["user_id"] == stream.user_id
        assert abs(facts["since"] - time.time()) < 30
        assert facts["buffered"] == 0
        assert set(facts) == {
            "connection",
            "user_id",
            "channels",
            "address",
            "user_agent",
            "since",
            "events",
            "bytes",
            "buffered",
            "worker",
        }
    assert len({stream["worker"] for stream in listed.values()}) == 2


def test_figures_go_on_when_a_stream_changes_its_channels(
    workers: tuple[list[Record], list[WorkerQueries]], broker: Broker
) -> None:
    streams, worker_queries = workers
    announcer = MessageAnnouncer(broker, Settings())
    cursor = announcer.publish("seen", channel="c")
    announcer.publish("missed", channel="c")
    announcer.publish("one", channel="a")
    announcer.join("s0", "c", since=cursor)
    eventually(lambda: b"sse.channels" in streams[0].got)
    announcer.publish("two", channel="c")
    eventually(lambda: b"two" in streams[0].got)
    facts = next(one for one in worker_queries[0].connections() if one["connection"] == "s0")
    assert facts["events"] == 3
    assert facts["bytes"] == len(streams[0].got)
    assert facts["channels"] == ["a", "c"]


def test_workers_answer_further_kinds_of_queries(
    workers: tuple[list[Record], list[WorkerQueries]], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker_queries = workers
    for one in worker_queries:
        answers = one.ask("where", {"n": 1}, user_id="7")
        assert sorted(each["connection"] for each in answers.found) == ["s0", "s1"]
        assert [each["asked"] for each in answers.found] == [{"n": 1}] * 2
        assert answers.missing == []
        assert one.ask("unknown") == ([], [])
    monkeypatch.setattr(query, "TIMEOUT", 0.4)
    broker.counts.report("killed", 1, {}, 60)
    answers = worker_queries[0].ask("where")
    assert len(answers.found) == 4
    assert answers.missing == ["killed"]


def test_a_query_does_not_wait_long_for_a_killed_worker(
    workers: tuple[list[Record], list[WorkerQueries]], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "TIMEOUT", 0.4)
    _, worker_queries = workers
    broker.counts.report("killed", 1, {}, 60)
    began = time.monotonic()
    assert len(worker_queries[0].connections()) == 4
    assert 0.4 <= time.monotonic() - began < 0.4 + stretched(1.6)


def test_a_worker_answers_a_query_that_came_just_before_it_heard_commands(
    make_worker: MakeWorker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcer = MessageAnnouncer(broker, Settings())
    monkeypatch.setattr(query, "TIMEOUT", 3600.0)
    asked = {"what": "count", "asker": "another", "channel": None, "user_id": None}
    announcer.command(query.COMMAND, ticket="open", **asked)
    hub, _ = make_worker()
    Record(hub, "s", None, "a")
    (answer,) = eventually(lambda: broker.counts.replies("open", 0))
    assert json.loads(answer)["count"] == 1

    monkeypatch.setattr(query, "TIMEOUT", 0.0)  # nobody waits for an answer any more
    announcer.command(query.COMMAND, ticket="over", **asked)
    hub, _ = make_worker()
    Record(hub, "t", None, "a")
    eventually(lambda: gets_commands(hub))
    announcer.command(query.COMMAND, ticket="next", **asked)
    eventually(lambda: len(broker.counts.replies("next", 0)) == 2)
    assert len(broker.counts.replies("over", 0)) == 1  # of the first worker


def test_a_part_that_a_worker_stores_twice_counts_once(
    workers: tuple[list[Record], list[WorkerQueries]], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = broker.counts
    store = counts.add_replies

    def store_twice(ticket: str, parts: Sequence[bytes]) -> None:
        store(ticket, parts)  # the reply to this call is lost
        store(ticket, parts)

    monkeypatch.setattr(counts, "add_replies", store_twice)
    _, worker_queries = workers
    for one in worker_queries:
        assert one.count() == 4
        assert len(one.connections()) == len(one.ask("where").found) == 4


def test_without_streams_there_is_nothing_to_list(make_worker: MakeWorker) -> None:
    _, one = make_worker()
    assert one.connections() == []
    assert one.count() == 0
    assert one.stats() == []
