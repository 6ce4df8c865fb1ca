"""Batches from a real server, with both transports."""

from __future__ import annotations

import time

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.stream import Received, Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


def unpacked(events: list[Received]) -> list[tuple[str, str, str]]:
    """Type, data and id of the events in `sse.batch` messages."""
    messages = [message for event in events for message in event.json()]
    assert [event.type for event in events] == ["sse.batch"] * len(events)
    assert [event.id for event in events] == [event.json()[-1]["id"] for event in events]
    return [(message["type"], message["data"], message["id"]) for message in messages]


def read_batches(stream: Stream, count: int) -> list[tuple[str, str, str]]:
    """Reads batches until they have `count` events; returns type, data and id of each event."""
    events: list[Received] = []
    while len(found := unpacked(events)) < count:
        events.append(stream.next_of("sse.batch"))
    assert len(found) == count
    return found


def test_only_clients_that_ask_for_batches_get_batches(serve: Serve, empty_valkey: str) -> None:
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
        print(f"200 events in {elapsed:.2f} s: {len(singles)} chunks without batches, {len(chunks)} with")
        assert len(chunks) <= elapsed / 0.1 + 2
        batched._text = b"".join(chunks)
        found = read_batches(batched, 200)
        assert found == [("tick", f'{{"n": {n}}}\t', cursor) for n, cursor in enumerate(cursors)]


def test_a_stream_cut_within_a_batch_neither_loses_nor_doubles_an_event(
    serve: Serve, empty_valkey: str
) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    url = f"{server.url}/stream?channels=a&batch=250"
    with Stream(url) as stream:
        stream.next_of("sse.open")
        announcer.publish_many([{"data": str(n), "channel": "a"} for n in range(10)])
        assert [data for _, data, _ in read_batches(stream, 10)] == [str(n) for n in range(10)]
        announcer.publish_many([{"data": str(n), "channel": "a"} for n in range(10, 20)])
        half = stream.chunk()
        assert half.count(b'"type"') == 10  # the batch came, but the client loses it with the connection
    announcer.publish("20", channel="a")
    with Stream(url, cursor=stream.cursor) as stream:
        assert stream.next_of("sse.open").json()["resumed"] is True
        assert [data for _, data, _ in read_batches(stream, 11)] == [str(n) for n in range(10, 21)]
        middle = id_within_a_batch(stream, announcer)
    with Stream(url, cursor=middle) as stream:  # the page handled only the first event of the batch
        assert [data for _, data, _ in read_batches(stream, 1)] == ["second"]


def id_within_a_batch(stream: Stream, announcer: MessageAnnouncer) -> str:
    """Publishes two events, which come in one batch; returns the id of the first."""
    announcer.publish_many([{"data": data, "channel": "a"} for data in ("first", "second")])
    return read_batches(stream, 2)[0][2]


def test_waiting_events_are_sent_before_a_heartbeat_and_before_the_close(
    serve: Serve, empty_valkey: str
) -> None:
    server = serve(heartbeat=0.4, batch_ms="a=5000")
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with (
        Stream(f"{server.url}/stream?channels=a,b") as stream,
        Stream(f"{server.url}/stream?channels=a&batch=0") as unbatched,
    ):
        for opened in (stream, unbatched):
            opened.next_of("sse.open")
        announcer.publish("1", channel="a")
        assert unbatched.next_of("message").data == "1"
        before = []
        while (event := stream.next()).type != "sse.batch":
            before.append(event.id)
            assert len(before) < 100, "the event does not come"
        assert unpacked([event])[0][1:] == ("1", unbatched.cursor)
        assert unbatched.cursor not in before  # no heartbeat had the cursor of the event that still waited
        announcer.publish("2", channel="a")
        announcer.publish("3", channel="b")  # `batch_ms` does not name channel b, so this event does not wait
        assert [data for _, data, _ in read_batches(stream, 2)] == ["2", "3"]
        announcer.publish("4", channel="a")
        assert [event.data for event in unbatched.take(2)] == ["2", "4"]
        server.process.terminate()
        rest = [event for event in stream if event.type != "sse.heartbeat"]
        assert [event.type for event in rest] == ["sse.batch", "sse.close"]
        assert unpacked(rest[:1])[0][1] == "4"
        assert stream.complete
