"""Streams on two gunicorn workers: disconnect, channel changes, and a killed worker."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


def test_disconnect_ends_the_streams_of_a_channel_on_all_workers(serve: Serve, empty_valkey: str) -> None:
    server = serve(workers=2)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    leaving = [Stream(f"{server.url}/stream?channels=a,b") for _ in range(12)]
    staying = [Stream(f"{server.url}/stream?channels=b") for _ in range(12)]
    connections = {stream.next_of("sse.open").json()["connection"] for stream in leaving + staying}
    assert len(connections) == 24
    announcer.publish("all are there", channel="b")
    for stream in leaving + staying:
        assert stream.next_of("message").data == "all are there"
    began = time.monotonic()
    announcer.publish("goodbye", channel="a")
    announcer.disconnect(channel="a", reconnect=False)
    announcer.publish("too late", channel=["a", "b"])
    for stream in leaving:
        got = [event for event in stream if event.type != "sse.heartbeat"]
        assert [event.type for event in got] == ["message", "sse.close"]
        assert got[1].json()["reason"] == "disconnected"
        assert got[1].json()["reconnect"] is False
        assert stream.complete
    print(f"24 streams on 2 workers: ended after {time.monotonic() - began:.3f} s")
    assert time.monotonic() - began < stretched(1.0)
    for stream in staying:
        assert stream.next_of("message").data == "too late"


def test_a_post_to_any_worker_changes_the_channels_of_a_stream(
    serve: Serve, empty_valkey: str, http: httpx.Client
) -> None:
    server = serve(workers=2)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    streams = [Stream(f"{server.url}/stream?channels=lobby") for _ in range(10)]
    cursor = announcer.publish("seen", channel="room")
    announcer.publish("missed", channel="room")
    for stream in streams:
        facts = stream.next_of("sse.open").json()
        body = {"join": ["room"], "leave": ["lobby"], "since": cursor, "secret": facts["secret"]}
        answer = http.post(f"{server.url}/stream/{facts['connection']}/channels", json=body)
        assert answer.status_code == 202, answer.text
    for stream in streams:
        missed = stream.next_of("sse.missed").json()["events"]
        assert [event["data"] for event in missed] == ["missed"]
        assert stream.next_of("sse.channels").json()["channels"] == ["room"]
    announcer.publish("not for them", channel="lobby")
    announcer.publish("live", channel="room")
    for stream in streams:
        assert stream.next_of("message").data == "live"
    announcer.publish("while away", channel="room")
    with Stream(f"{server.url}/stream?channels=room", cursor=streams[0].cursor) as again:
        assert again.next_of("sse.open").json()["resumed"] is True
        assert again.next_of("message").data == "while away"


def is_cut(stream: Stream) -> bool:
    """Whether the stream broke. An open stream gets an `sse.presence` about the users who left."""
    try:
        for _ in range(100):
            if stream.next_of("sse.presence").json()["leave"]:
                return False
    except (EOFError, ConnectionError):
        return True
    raise AssertionError("the stream got no sse.presence about the users who left")


def test_users_of_a_killed_worker_leave_presence_when_its_lease_ends(
    serve: Serve, http: httpx.Client
) -> None:
    server = serve("tests.apps.people:app", workers=2, presence_grace=0.2)
    streams: dict[int, Stream] = {}

    def people() -> dict[str, Any]:
        return dict(http.get(f"{server.url}/people").json())

    def workers() -> Counter[str]:
        return Counter(connection["worker"] for connection in people()["connections"])

    def open_more() -> bool:
        """Opens 8 more streams at once, so that both workers get some. Returns whether both have streams."""
        fresh = range(len(streams), len(streams) + 8)
        with ThreadPoolExecutor(8) as pool:
            urls = [f"{server.url}/stream?channels=room:1&user=u{n}" for n in fresh]
            streams.update(zip(fresh, pool.map(Stream, urls), strict=True))
        for n in fresh:
            streams[n].next_of("sse.open")
        return len(workers()) == 2

    eventually(open_more)
    total = len(streams)
    eventually(lambda: people()["presence"]["count"] == total)
    found = people()
    assert len(found["connections"]) == total
    assert {connection["address"] for connection in found["connections"]} == {"127.0.0.1"}
    victim = found["pid"]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    alive = [n for n, stream in streams.items() if not is_cut(stream)]
    assert 0 < len(alive) < total
    eventually(lambda: people()["presence"]["users"] == sorted(f"u{n}" for n in alive), 10)
    took = time.monotonic() - began
    assert len(people()["connections"]) == len(alive)
    print(f"the users were gone after {took:.1f} s with a lease of 2 s; it is 15 s outside tests")
    assert took < 2 + stretched(0.5 + 3)
