"""The test kit, as users meet it: streams of the test client, deadlines, the clock, the in-memory broker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response

from flask_sse_push import ConfigError, SSEBlueprint, payload
from flask_sse_push.testing import (
    Event,
    EventStream,
    FakeClock,
    NoEvent,
    Parser,
    SSEClient,
    StreamRefused,
    in_memory,
    published,
    read_events,
)
from tests.support.deadline import eventually, stretched
from tests.support.pages import blocks

sse = SSEBlueprint("push")


@pytest.fixture
def app() -> Flask:
    """The fixture of a user. Its configuration names a Redis that does not exist."""
    app = Flask(__name__)
    app.config["SSE_PUSH_BROKER_URL"] = "redis://127.0.0.1:1/0"
    app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ["news", "sse"]
    app.register_blueprint(sse, url_prefix="/events")

    @app.post("/say/<word>")
    def say(word: str) -> str:
        sse.publish({"word": word}, "said", channel="news", ttl=0)
        return ""

    @app.get("/own")
    def own() -> Response:
        return Response((f"data: {n}\n\n" for n in range(3)), mimetype="text/event-stream")

    @app.get("/broken")
    def broken() -> Response:
        def body() -> Iterator[str]:
            yield "data: 1\n\n"
            raise ValueError("the view's own")

        return Response(body(), mimetype="text/event-stream")

    return app


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sse-testing"]


def test_what_a_request_publishes_arrives_even_when_it_is_live_only(sse_client: SSEClient) -> None:
    with sse_client.open("news") as stream:
        assert stream.opening["channels"] == ["news"]
        sse_client.http.post("/say/hello")
        event = stream.next()
        assert (event.type, event.json()) == ("said", {"word": "hello"})
        assert stream.cursor == event.id


def test_text_and_json_are_told_apart(sse_app: Flask, sse_client: SSEClient) -> None:
    with sse_client.open("news") as stream, sse_app.app_context():
        for value in ("42", 42, '"x"\t', {"a": "\t"}, "text\t"):
            sse.publish(value, channel="news")
        events = stream.take(5)
        assert [(event.data, event.is_json) for event in events] == [
            ("42", False),
            ("42", True),
            ('"\\"x\\"\\t"', True),
            ('{"a": "\\t"}', True),
            ("text\t", False),
        ]
        assert events[2].json() == '"x"\t'
        assert stream.opening["channels"] == ["news"]


def test_only_an_envelope_that_the_app_has_packed_counts_as_compressed(
    sse_app: Flask, sse_client: SSEClient
) -> None:
    big, packed = ["x"] * 1000, payload.compress(["y"] * 1000)
    forged = json.loads(json.dumps(packed))  # as a user sends it
    with sse_client.open("news") as stream, sse_app.app_context():
        sse.publish(big, channel="news", compress="auto")
        sse.publish(packed, channel="news")
        sse.publish(packed, channel="news", compress="auto")  # is not packed twice
        for lookalike in (forged, json.dumps(forged), json.dumps(forged) + "\t\t"):
            sse.publish(lookalike, channel="news")
        events = stream.take(6)
    assert [event.is_compressed for event in events] == [True, True, True, False, False, False]
    assert [payload.decompress(event.json()) for event in events[:3]] == [big, ["y"] * 1000, ["y"] * 1000]
    assert events[3].json() == forged
    assert [event.is_json for event in events[3:]] == [True, False, True]
    assert events[5].json() == json.dumps(forged) + "\t\t"


def test_received_returns_all_that_was_published_before(sse_client: SSEClient) -> None:
    stream = sse_client.open("news")
    assert stream.received() == []
    for number in range(300):
        sse_client.http.post(f"/say/{number}")
    assert [event.json()["word"] for event in stream.received()] == [str(number) for number in range(300)]
    assert stream.received() == []


def test_a_failed_wait_lists_the_events_that_arrived(sse_client: SSEClient) -> None:
    stream = sse_client.open("news")
    sse_client.http.post("/say/other")
    began = time.monotonic()
    with pytest.raises(NoEvent, match=r"done did not arrive in time; before it arrived said .*other"):
        stream.next("done", timeout=0.1)
    assert time.monotonic() - began < stretched(3)
    with pytest.raises(NoEvent, match="its end did not arrive in time"):
        stream.rest(timeout=0.05)


def test_a_refused_stream_says_so(sse_client: SSEClient) -> None:
    with pytest.raises(StreamRefused, match="403") as refused:
        sse_client.open("secret")
    assert refused.value.error["name"] == "PERMISSION_DENIED"
    with pytest.raises(StreamRefused) as missing:
        sse_client.get("/nowhere")
    assert missing.value.status == 404


def test_compressed_streams_are_read_as_any_other(app: Flask) -> None:
    with in_memory(app, http_compression=True), SSEClient(app) as client:
        streams = [client.open("news", headers={"Accept-Encoding": "gzip"}) for _ in range(2)]
        for word in ("one", "two"):
            client.http.post(f"/say/{word}")
            for stream in streams:
                assert stream.response.headers["Content-Encoding"] == "gzip"
                assert [event.json()["word"] for event in stream.received()] == [word]


def test_a_closed_stream_leaves_nothing_behind(sse_app: Flask, sse_client: SSEClient) -> None:
    streams = [sse_client.open("news"), sse_client.open()]
    with sse_app.app_context():
        assert sse.stats()["streams"] == 2
        for stream in streams:
            stream.close()
            stream.close()
        eventually(lambda: sse.stats()["streams"] == 0)
    assert threads() == []


def test_heartbeats_come_when_the_clock_says_so(sse_client: SSEClient, sse_clock: FakeClock) -> None:
    stream = sse_client.open("news")
    sse_clock.advance(10)
    with pytest.raises(NoEvent):
        stream.next("sse.heartbeat", timeout=0.6)
    sse_clock.advance(5)
    assert stream.next("sse.heartbeat").id == stream.cursor
    sse_clock.advance(86_400)  # a day later the stream is still there
    assert stream.next("sse.heartbeat").data == "{}"


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)


def test_each_block_has_a_broker_of_its_own(app: Flask) -> None:
    with in_memory(app, history_size=2), app.app_context():
        sse.publish_many([{"data": str(n), "channel": "news"} for n in range(3)])
        assert [event.data for event in published(app, "news")] == ["1", "2"]
    with in_memory(app):
        assert published(app, "news") == []
    with app.app_context():
        assert sse.services.settings.broker_url == "redis://127.0.0.1:1/0"


def test_wrong_settings_and_apps_are_refused(app: Flask) -> None:
    with pytest.raises(ConfigError, match="SSE_PUSH_HEARTBEAT is -1"), in_memory(app, heartbeat=-1):
        pass
    with pytest.raises(RuntimeError, match="no SSEBlueprint"), in_memory(Flask("bare")):
        pass
    with pytest.raises(RuntimeError, match="no SSEBlueprint"):
        SSEClient(Flask("bare")).open()


def test_streams_of_the_apps_own_views_are_read_too(sse_client: SSEClient) -> None:
    assert [event.data for event in sse_client.get("/own").rest()] == ["0", "1", "2"]
    assert [event.data for event in read_events(sse_client.http.get("/own"))] == ["0", "1", "2"]
    with pytest.raises(NoEvent, match="after 3 of 4 events"):
        read_events(sse_client.http.get("/own"), 4)
    with pytest.raises(StreamRefused, match="404"):
        read_events(sse_client.http.get("/nowhere"))


def test_what_a_view_raises_while_it_streams_reaches_the_test(sse_client: SSEClient) -> None:
    stream = sse_client.get("/broken")
    assert stream.next().data == "1"
    with pytest.raises(ValueError, match="the view's own"):
        stream.next()


def test_read_events_leaves_a_live_stream(sse_app: Flask) -> None:
    with sse_app.app_context():
        sse.publish("kept", channel="news")
    response = sse_app.test_client().get("/events?channels=news&last_event_id=earliest")
    opening, event = read_events(response, 2, control=True)
    assert (opening.type, event.data) == ("sse.open", "kept")
    with sse_app.app_context():
        eventually(lambda: sse.stats()["streams"] == 0)


def test_it_reads_real_redis_as_well(app: Flask, empty_valkey: str) -> None:
    app = Flask(__name__)
    app.config["SSE_PUSH_BROKER_URL"] = empty_valkey
    app.register_blueprint(sse, url_prefix="/events")
    with SSEClient(app) as client, app.app_context():
        stream = client.open()
        sse.publish("over Redis", ttl=0)
        assert [event.data for event in stream.received()] == ["over Redis"]
        client.close()
        sse.services.close()


def test_the_stream_of_a_response_alone_is_read_with_deadlines(sse_app: Flask) -> None:
    with EventStream(sse_app.test_client().get("/events")) as stream:
        assert stream.next("sse.open").json()["resumed"] is False


STREAM = (
    "\ufeff: hello\r\nid: 1\rdata: a\ndata:b\r\n\r\ndata: only\n\n"
    "event: x\nid: 2\0\nretry: 5\ndata\n\nid: 9\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_parser_follows_the_standard_wherever_chunks_end(size: int) -> None:
    parser, encoded = Parser(), STREAM.encode()
    chunks = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == [
        Event("message", "a\nb", "1"),
        Event("message", "only", "1"),
        Event("x", "", "1", 5),
    ]
    assert parser.comments == ["hello"]


def test_the_examples_in_the_documentation_run(tmp_path: Path) -> None:
    examples = blocks("docs/testing.md", "python")
    assert len(examples) == 3
    for number, example in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stdout
    assert "6 passed" in result.stdout
