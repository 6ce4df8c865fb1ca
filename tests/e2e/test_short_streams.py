"""`?poll=<seconds>`: streams that end after their first events, for networks that hold a response back."""

from __future__ import annotations

import contextlib
import time
from threading import Thread
from typing import Any

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.stream import Received, Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


def rest(stream: Stream) -> list[Received]:
    """Reads a stream to its end."""
    events = []
    with contextlib.suppress(EOFError):
        for event in stream:
            events.append(event)
    assert stream.complete or stream.headers.get("transfer-encoding") is None  # HTTP/1.0 has no other end
    return events


def poll(url: str, query: str, **options: Any) -> tuple[list[Received], Stream]:
    """Reads a short stream to its end. Returns its events."""
    with Stream(f"{url}/stream?{query}", **options) as stream:
        assert stream.status == 200
        return rest(stream), stream


def test_a_short_stream_ends_with_a_heartbeat_or_after_its_first_events(
    serve: Serve, empty_valkey: str
) -> None:
    server, announcer = serve(heartbeat=30), MessageAnnouncer.from_url(empty_valkey)
    began = time.monotonic()
    quiet, _ = poll(server.url, "channels=a&poll=1")
    assert [event.type for event in quiet] == ["sse.open", "sse.heartbeat"]
    assert quiet[0].json()["heartbeat"] == 1, "the client knows when to give up"
    assert 0.5 < time.monotonic() - began < 20
    for version in ("1.1", "1.0"):
        with Stream(f"{server.url}/stream?channels=a&poll=55", version=version) as stream:
            opening = stream.next_of("sse.open")
            announcer.publish(version, channel="a")
            assert [event.data for event in rest(stream)] == [version]
        missed, _ = poll(server.url, "channels=a&poll=55", cursor=opening.id, version=version)
        assert [event.data for event in missed[1:]] == [version]
    lost, _ = poll(server.url, "channels=a&poll=55", cursor="lost")
    assert lost[-1].type == "sse.reset"


def test_polls_one_after_another_get_each_event_once(serve: Serve, empty_valkey: str) -> None:
    server, announcer, total = serve(), MessageAnnouncer.from_url(empty_valkey), 300
    _, first = poll(server.url, "channels=a,b&poll=0")

    def publish() -> None:
        for number in range(total):
            announcer.publish(number, channel="ab"[number % 2])
            time.sleep(0.002)

    publisher = Thread(target=publish)
    publisher.start()
    numbers: list[int] = []
    cursor, polls = first.cursor, 0
    while len(numbers) < total:
        query = f"channels=a,b&poll=20{'&batch=20' if polls % 2 else ''}"
        events, stream = poll(server.url, query, cursor=cursor)
        cursor, polls = stream.cursor, polls + 1
        for event in events:
            batch = event.json() if event.type == "sse.batch" else ()
            numbers += [int(member["data"]) for member in batch]
            numbers += [int(event.data)] if event.type == "message" else []
        assert numbers == list(range(len(numbers)))
    publisher.join()
    assert polls > 5, "each short stream ended soon after its first event"


def test_a_short_stream_is_not_compressed(serve: Serve) -> None:
    server = serve(http_compression=1)
    _, stream = poll(server.url, "channels=a&poll=0", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in stream.headers
    assert stream.headers["vary"] == "Cookie, Accept-Encoding"


def test_waiting_short_streams_leave_the_worker_free(
    serve: Serve, transport: str, http: httpx.Client, empty_valkey: str
) -> None:
    """The worker serves at most three connections at once, and five short streams wait."""
    if transport == "generator":
        return  # such a stream keeps a greenlet of the worker busy
    server = serve("tests.apps.plain:app", "--worker-connections", "3")
    streams = [Stream(f"{server.url}/stream?channels=a&poll=55") for _ in range(5)]
    for stream in streams:
        assert stream.next().type == "sse.open"
    assert http.get(server.url).text == "hello"
    MessageAnnouncer.from_url(empty_valkey).publish("x", channel="a")
    assert [[event.data for event in stream] for stream in streams] == [["x"]] * 5
    eventually(lambda: http.get(f"{server.url}/stats").json()["streams"] == 0)


def test_a_client_that_sends_nothing_more_still_waits(serve: Serve, empty_valkey: str) -> None:
    server = serve()
    with Stream(f"{server.url}/stream?channels=a&poll=55") as stream:
        stream.next_of("sse.open")
        stream.stop_sending()
        MessageAnnouncer.from_url(empty_valkey).publish("x", channel="a")
        assert stream.take(1)[0].data == "x"
        assert list(stream) == []


def test_a_short_stream_is_refused_and_closed_like_any_other(serve: Serve, empty_valkey: str) -> None:
    server, announcer = serve(), MessageAnnouncer.from_url(empty_valkey)
    for value in ("56", ""):
        answer = httpx.get(f"{server.url}/stream", params={"poll": value}, trust_env=False)
        assert (answer.status_code, answer.json()["message"]) == (
            400,
            f"poll is {value!r}, must be seconds from 0 to 55",
        )
    with Stream(f"{server.url}/stream?channels=a&poll=55") as stream:
        opening = stream.next_of("sse.open").json()
        announcer.disconnect(connection=opening["connection"], reconnect=False)
        assert stream.next().json()["reconnect"] is False
