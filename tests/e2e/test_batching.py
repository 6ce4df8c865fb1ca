"""Batches through a real server, by both transports."""

from __future__ import annotations

import time

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.stream import Received, Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


def unpacked(events: list[Received]) -> list[tuple[str, str, str]]:
    """Type, data and id of the events in batches."""
    messages = [message for event in events for message in event.json()]
    assert [event.type for event in events] == ["sse.batch"] * len(events)
    assert [event.id for event in events] == [event.json()[-1]["id"] for event in events]
    return [(message["type"], message["data"], message["id"]) for message in messages]


def gathered(stream: Stream, count: int) -> list[tuple[str, str, str]]:
    events: list[Received] = []
    while len(found := unpacked(events)) < count:
        events.append(stream.next_of("sse.batch"))
    assert len(found) == count
    return found


def test_events_come_in_batches_to_clients_that_ask_and_the_others_get_them_alone(
    serve: Serve, empty_valkey: str
) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with (
        Stream(f"{server.url}/stream?channels=a") as plain,
        Stream(f"{server.url}/stream?channels=a&batch=100") as batched,
    ):
        for stream in (plain, batched):
            stream.next_of("sse.open")
        began = time.monotonic()
        cursors = []
        for n in range(200):
            time.sleep(max(0.0, began + n / 200 - time.monotonic()))
            cursors.append(announcer.publish({"n": n}, type="tick", channel="a"))
        elapsed = time.monotonic() - began
        chunks = [batched.chunk()]
        while sum(chunk.count(b'"type":"tick"') for chunk in chunks) < 200:
            chunks.append(batched.chunk())
        singles = [plain.chunk()]
        while sum(chunk.count(b"event: tick") for chunk in singles) < 200:
            singles.append(plain.chunk())
        print(f"200 events in {elapsed:.2f} s: {len(singles)} chunks alone, {len(chunks)} in batches")
        assert len(chunks) <= elapsed / 0.1 + 2
        batched._text = b"".join(chunks)
        found = gathered(batched, 200)
        assert found == [("tick", f'{{"n": {n}}}', cursor) for n, cursor in enumerate(cursors)]


def test_a_cut_in_a_batch_neither_loses_nor_doubles(serve: Serve, empty_valkey: str) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    url = f"{server.url}/stream?channels=a&batch=250"
    with Stream(url) as stream:
        stream.next_of("sse.open")
        announcer.publish_many([{"data": str(n), "channel": "a"} for n in range(10)])
        assert [data for _, data, _ in gathered(stream, 10)] == [str(n) for n in range(10)]
        announcer.publish_many([{"data": str(n), "channel": "a"} for n in range(10, 20)])
        half = stream.chunk()
        assert half.count(b'"type"') == 10  # it came, but the client gets only a part of it
    announcer.publish("20", channel="a")
    with Stream(url, cursor=stream.cursor) as stream:
        assert stream.next_of("sse.open").json()["resumed"] is True
        assert [data for _, data, _ in gathered(stream, 11)] == [str(n) for n in range(10, 21)]
        middle = gathered_id(stream, announcer)
    with Stream(url, cursor=middle) as stream:  # as far as the page's handlers came
        assert [data for _, data, _ in gathered(stream, 1)] == ["second"]


def gathered_id(stream: Stream, announcer: MessageAnnouncer) -> str:
    """The id of the first of two events in one batch."""
    announcer.publish_many([{"data": data, "channel": "a"} for data in ("first", "second")])
    return gathered(stream, 2)[0][2]


def test_what_waits_goes_before_a_heartbeat_and_before_the_end(serve: Serve, empty_valkey: str) -> None:
    server = serve(heartbeat=0.4, batch_ms="a=5000")
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with (
        Stream(f"{server.url}/stream?channels=a,b") as stream,
        Stream(f"{server.url}/stream?channels=a&batch=0") as alone,
    ):
        for each in (stream, alone):
            each.next_of("sse.open")
        announcer.publish("1", channel="a")
        assert alone.next_of("message").data == "1"
        before = []
        while (event := stream.next()).type != "sse.batch":
            before.append(event.id)
        assert unpacked([event])[0][1:] == ("1", alone.cursor)
        assert alone.cursor not in before  # no heartbeat says that it came
        announcer.publish("2", channel="a")
        announcer.publish("3", channel="b")  # has no pattern: does not wait
        assert [data for _, data, _ in gathered(stream, 2)] == ["2", "3"]
        announcer.publish("4", channel="a")
        assert [each.data for each in alone.take(2)] == ["2", "4"]
        server.process.terminate()
        rest = [each for each in stream if each.type != "sse.heartbeat"]
        assert [each.type for each in rest] == ["sse.batch", "sse.close"]
        assert unpacked(rest[:1])[0][1] == "4"
        assert stream.complete
