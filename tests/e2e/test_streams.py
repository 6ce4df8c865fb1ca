"""What is done to streams from elsewhere: two gunicorn workers, both transports."""

from __future__ import annotations

import time

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
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
    assert time.monotonic() - began < 1.0
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
