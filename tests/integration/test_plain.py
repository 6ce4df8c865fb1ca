"""`?events=plain`: a stream without the events that only PushClient needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder
from werkzeug.test import TestResponse

from flask_sse_push.testing.events import Parser

from .conftest import MakeApp
from .test_blueprint import Reader, listening
from .test_policy import refusal


class Plain:
    """A plain stream: its bytes so far, and the events that two decoders read from them."""

    def __init__(self, response: TestResponse) -> None:
        self._body: Iterator[bytes] = iter(response.response)  # type: ignore[arg-type]
        self._parser, self._lines = Parser(), SSEDecoder()
        self.text = ""
        self.events: list[tuple[str, str]] = []
        self.all: list[tuple[str, str]] = []  # what a client without a filter shows

    def read(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not until():
            assert time.monotonic() < deadline, f"the stream got only {self.text!r}"
            self.feed(next(self._body))

    def feed(self, chunk: bytes) -> None:
        self.text += chunk.decode()
        self.events += [(event.type, event.data) for event in self._parser.feed(chunk)]
        found = (self._lines.decode(line) for line in chunk.decode().split("\n")[:-1])
        self.all += [(event.event, event.data) for event in found if event is not None]

    def rest(self) -> None:
        for chunk in self._body:
            self.feed(chunk)


@contextmanager
def plain(client: Any, query: str = "", **options: Any) -> Iterator[Plain]:
    response = client.get(f"/stream?events=plain{query}", buffered=False, **options)
    try:
        assert response.status_code == 200, response.get_data(as_text=True)
        yield Plain(response)
    finally:
        response.close()


def lines_of(text: str, name: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith(name)]


def test_a_client_without_a_filter_gets_only_the_events_of_the_app(make_app: MakeApp) -> None:
    app, sse = make_app(heartbeat=0.1, probe=0.05)
    with app.app_context():
        cursor = sse.publish("seen")
        sse.publish("missed")
    with plain(app.test_client(), f"&last_event_id={cursor}") as stream:
        stream.read(lambda: len(stream.events) == 1)
        assert lines_of(stream.text, "retry: ")
        stream.read(lambda: len(lines_of(stream.text, ": heartbeat")) == 4)
        ids = lines_of(stream.text, "id: ")
        assert ids == sorted(ids)
        assert len(set(ids[2:])) > 1  # the cursor of a silent stream moves on
        with app.app_context():
            sse.publish({"n": 1}, "price")
        stream.read(lambda: len(stream.events) == 2)
        assert stream.events == [("message", "missed"), ("price", '{"n": 1}')]
        assert stream.all == [("message", "missed"), ("price", '{"n": 1}\t')]
        assert "sse." not in stream.text


def test_a_client_resumes_from_the_cursor_of_a_heartbeat(make_app: MakeApp) -> None:
    app, sse = make_app(heartbeat=0.1, probe=0.05)
    with plain(app.test_client()) as stream:
        stream.read(lambda: len(lines_of(stream.text, ": heartbeat")) == 3)
        cursor = lines_of(stream.text, "id: ")[-1].removeprefix("id: ")
    with app.app_context():
        sse.publish("missed")
    with plain(app.test_client(), headers={"Last-Event-ID": cursor}) as stream:
        stream.read(lambda: len(stream.events) == 1)
        assert stream.all == [("message", "missed")]


def test_loss_is_still_told(make_app: MakeApp) -> None:
    app, sse = make_app()
    with plain(app.test_client(), "&last_event_id=unknown") as stream:
        stream.read(lambda: len(stream.events) == 1)
        assert stream.events == [("sse.reset", '{"channels":["sse"],"reason":"cursor"}')]
        with app.app_context():
            sse.publish("next")
        stream.read(lambda: len(stream.events) == 2)
        assert stream.all[1:] == [("message", "next")]


def test_an_event_for_others_moves_the_cursor_without_an_event(make_app: MakeApp) -> None:
    app, sse = make_app()
    sse.identify(lambda request: "ada")
    with plain(app.test_client()) as stream:
        stream.read(lambda: ": heartbeat" in stream.text)
        with app.app_context():
            hidden = sse.publish("not for ada", exclude="ada")
        stream.read(lambda: f": heartbeat\nid: {hidden}\n" in stream.text)
        with app.app_context():
            sse.publish("for all")
        stream.read(lambda: bool(stream.events))
        assert stream.all == [("message", "for all")]


@pytest.mark.parametrize("reconnect", [True, False])
def test_the_stream_ends_without_a_last_event(make_app: MakeApp, reconnect: bool) -> None:
    app, sse = make_app()
    with plain(app.test_client()) as stream:
        stream.read(lambda: ": heartbeat" in stream.text)
        began = len(stream.text)
        with app.app_context():
            sse.disconnect(channel="sse", reconnect=reconnect)
        stream.rest()
        assert stream.all == []
        (retry,) = stream.text[began:].splitlines()
        assert retry.startswith("retry: ")


def test_a_channel_that_is_taken_away_is_still_told(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="a")
    sse.identify(lambda request: "ada")
    sse.authorize(lambda user, channel: True)
    with plain(app.test_client(), "&channels=a,b") as stream:
        stream.read(lambda: ": heartbeat" in stream.text)
        with app.app_context():
            sse.revoke("ada", "b")
        stream.read(lambda: bool(stream.events))
        assert [type for type, _ in stream.all] == ["sse.error"]


def test_only_a_client_that_asks_for_batches_gets_them(make_app: MakeApp) -> None:
    app, sse = make_app(batch_ms={"sse": 10})
    with app.app_context():
        sse.publish("1")
    with plain(app.test_client(), "&last=1") as stream:
        stream.read(lambda: len(stream.events) == 1)
        with app.app_context():
            sse.publish("2")
        stream.read(lambda: len(stream.events) == 2)
        assert stream.all == [("message", "1"), ("message", "2")]
    with plain(app.test_client(), "&last=1&batch=10") as stream:
        stream.read(lambda: len(stream.events) == 1)
        assert [type for type, _ in stream.all] == ["sse.batch"]


@pytest.mark.parametrize("value", ["", "all", "Plain", "plain,all", "1", "x" * 300])
def test_another_value_is_refused_with_the_value_that_is_allowed(make_app: MakeApp, value: str) -> None:
    app, _ = make_app()
    for answer in (
        app.test_client().get("/stream", query_string={"events": value}),
        app.test_client().post("/stream", json={"events": value}),
    ):
        assert refusal(answer) == (400, 1301)
        assert answer.json is not None
        assert (
            answer.json["message"]
            == f"events is {value[:40]!r}, must be one of plain, turbo, datastar, or not be given"
        )


def test_a_plain_stream_can_be_opened_by_post(make_app: MakeApp) -> None:
    app, sse = make_app()
    response = app.test_client().post("/stream", json={"events": "plain", "last": 1}, buffered=False)
    stream = Plain(response)
    stream.read(lambda: ": heartbeat" in stream.text)
    with app.app_context():
        sse.publish("x")
    stream.read(lambda: bool(stream.events))
    assert stream.all == [("message", "x")]
    response.close()


def test_plain_streams_have_groups_of_their_own_and_other_streams_the_usual_bytes(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*", heartbeat=0.1)
    client = app.test_client()
    with (
        plain(client) as one,
        plain(client) as two,
        listening(client, "/stream") as usual,
        app.app_context(),
    ):
        assert usual.next()["event"] == "sse.open"
        assert usual.next()["event"] == "sse.heartbeat"
        for stream in (one, two):  # the second heartbeat comes when the stream is in its group
            stream.read(lambda stream=stream: stream.text.count(": heartbeat") == 2)  # type: ignore[misc]
        assert sse.stats()["groups"] == 2
        cursor = sse.publish("x")
        for stream in (one, two):
            stream.read(lambda stream=stream: bool(stream.events))  # type: ignore[misc]
            assert stream.all == [("message", "x")]
        assert next_of(usual, "x") == {"id": cursor, "data": "x"}


def next_of(reader: Reader, data: str) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while (event := reader.next())["data"] != data:
        assert event["event"] == "sse.heartbeat"
        assert time.monotonic() < deadline, f"{data!r} does not come"
    return event
