"""Runs in the formats of front ends: whole responses, late readers, and how each response ends."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
import redis
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_sse_push import Identity, InvalidEvent, SSEBlueprint
from flask_sse_push.runs.run import Run
from flask_sse_push.testing import SSEClient, published
from tests.support.deadline import eventually

from .conftest import MakeApp

FORMATS = ("ai-sdk", "ag-ui", "openai")
CALL = {"type": "tool_call", "id": "c1", "name": "weather", "input": {"city": "Bonn"}}
RESULT = {"type": "tool_result", "id": "c1", "output": {"degrees": 21}}


class Body:
    """The body of a response, which a thread reads."""

    def __init__(self, response: Response | TestResponse) -> None:
        self.response = response
        self.data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for chunk in self.response.iter_encoded():
            self.data += chunk

    @property
    def lines(self) -> list[str]:
        """The data of the events so far."""
        return [line[6:] for line in self.data.decode().split("\n") if line.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line != "[DONE]"]

    @property
    def text(self) -> str:
        return "".join(map(text_of, self.chunks))

    def rest(self) -> Body:
        """Waits until the body has ended."""
        self._thread.join(10)
        assert not self._thread.is_alive(), self.data
        return self


def text_of(chunk: dict[str, Any]) -> str:
    """Returns the text in a chunk of any format."""
    if chunk.get("type") in ("text-delta", "TEXT_MESSAGE_CONTENT"):
        return str(chunk["delta"])
    choices = chunk.get("choices", [])
    return "".join(choice["delta"].get("content", "") for choice in choices)


class Chat:
    """An app with views that start and resume runs, and a gate that holds producers."""

    def __init__(self, app: Flask, sse: SSEBlueprint) -> None:
        self.app, self.sse = app, sse
        self.client: FlaskClient = app.test_client()
        self.gate = threading.Event()
        self.items: Callable[[], Iterator[Any]] = lambda: iter(())
        self.run: Run | None = None
        app.add_url_rule("/chat/<key>/<format>", "chat", self._chat, methods=["POST"])
        app.add_url_rule("/chat/<key>/<format>", "resume", self._resume)

    def _chat(self, key: str, format: str) -> Response:
        self.run = self.sse.start(self.items, key)
        response: Response = self.run.response(format)
        return response

    def _resume(self, key: str, format: str) -> Response:
        return self.sse.resume(key, format)

    def sse_streams(self) -> list[Any]:
        with self.app.app_context():
            return self.sse.connections()

    def post(self, format: str, key: str = "k") -> Body:
        return Body(self.client.post(f"/chat/{key}/{format}"))

    def get(self, format: str, key: str = "k", **headers: str) -> Body:
        return Body(self.app.test_client().get(f"/chat/{key}/{format}", headers=headers))


@pytest.fixture(params=["memory", "valkey"])
def chat(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[Chat]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("empty_valkey")
    made = Chat(*make_app(broker_url=url))
    yield made
    made.gate.set()


def gated(chat: Chat, *before: Any, after: tuple[Any, ...] = ()) -> Callable[[], Iterator[Any]]:
    """Returns a producer that waits for the gate between two lots of items."""

    def items() -> Iterator[Any]:
        yield from before
        assert chat.gate.wait(10)
        yield from after

    return items


@pytest.mark.parametrize("format", FORMATS)
def test_a_reader_that_comes_late_gets_the_same_run_from_its_beginning(chat: Chat, format: str) -> None:
    chat.items = gated(chat, "Hel", "lo ", CALL, RESULT, "wor", after=("ld",))
    first = chat.post(format)
    eventually(lambda: first.text.startswith("Hello wor"))
    second = chat.get(format)
    eventually(lambda: second.text.startswith("Hello wor"))
    chat.gate.set()
    assert first.rest().text == second.rest().text == "Hello world"
    assert first.chunks[0] == second.chunks[0]
    assert first.chunks[-1] == second.chunks[-1]
    for body in (first, second):
        assert b"sse." not in body.data
        assert b"retry:" not in body.data
        assert b"event:" not in body.data
    eventually(lambda: chat.get(format).response.status_code == 204)


def test_the_first_request_of_a_user_in_a_new_worker_gets_the_whole_run(make_app: MakeApp) -> None:
    """`start` subscribes the worker to revocations, so the worker knows of no earlier ones."""
    app, sse = make_app(broker_url="memory://")
    sse.identify(lambda request: "ada")
    chat = Chat(app, sse)
    chat.items = lambda: iter(["Hel", "lo"])
    body = chat.post("ai-sdk").rest()
    assert body.text == "Hello"
    assert body.lines[-1] == "[DONE]"


@pytest.mark.parametrize("format", FORMATS)
def test_a_client_with_a_last_event_id_gets_exactly_the_rest(chat: Chat, format: str) -> None:
    chat.items = gated(chat, "one ", CALL, "two ", after=("three", RESULT, " four"))
    first = chat.post(format)
    eventually(lambda: "two" in first.text)
    chat.gate.set()
    whole = first.rest().chunks
    run = chat.run
    assert run is not None
    events = [event for event in first.data.decode().split("\n\n") if "data: {" in event]
    for at, event in enumerate(events):
        seen = event.partition("id: ")[2].partition("\n")[0]
        if not seen:  # the next event has the cursor
            continue
        with chat.app.test_request_context(headers={"Last-Event-ID": seen}):
            # The run has ended, and its response is the whole run all the same.
            body = Body(run.response(format)).rest()
        had = [json.loads(each.partition("data: ")[2]) for each in events[: at + 1]]
        assert "".join(map(text_of, had)) + body.text == "one two three four"
        assert body.chunks[-1:] == (whole[-1:] if at < len(events) - 1 else [])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("way", "told"), [("stop", ""), ("raise", "KeyError"), ("malformed", "InvalidEvent")]
)
def test_a_run_that_ends_early_ends_each_response_as_its_format_says(
    chat: Chat, caplog: pytest.LogCaptureFixture, format: str, way: str, told: str
) -> None:
    def items() -> Iterator[Any]:
        yield "so far"
        assert chat.gate.wait(10)
        if way == "raise":
            raise KeyError("a secret")
        yield {"type": "tool_call", "name": "weather", "input": {}}

    chat.items = items
    body = chat.post(format)
    eventually(lambda: body.text == "so far")
    if way == "stop":
        with chat.app.app_context():
            chat.sse.stop("k")
    else:
        chat.gate.set()
    last = body.rest().chunks[-1]
    if way == "stop":
        assert last.get("type") in (None, "abort", "RUN_FINISHED")
        assert last.get("choices", [{"finish_reason": "stop"}])[0]["finish_reason"] == "stop"
    else:
        assert told in str(last)
        assert "secret" not in body.data.decode()
        eventually(lambda: "producer of run 'k' failed" in caplog.text)  # logged after the run has ended
    if way == "malformed":
        assert "item: has the type 'tool_call', but no 'id'" in caplog.text
    assert body.lines[-1] == "[DONE]" or format == "ag-ui"


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_start_with_the_same_key_reads_the_run_under_way(chat: Chat, format: str) -> None:
    chat.items = gated(chat, "first", after=(" end",))
    first = chat.post(format)
    eventually(lambda: first.text == "first")
    chat.items = lambda: iter(["second"])
    second = chat.post(format)
    assert chat.run is not None
    assert not chat.run.started
    chat.gate.set()
    assert second.rest().text == first.rest().text == "first end"
    eventually(lambda: chat.get(format).response.status_code == 204)
    third = chat.post(format).rest()  # the channel has two runs now, and the response has only the new one
    assert third.text == "second"
    assert third.chunks[0] != first.chunks[0]


def test_a_run_that_has_lost_its_beginning_ends_with_an_error(make_app: MakeApp) -> None:
    chat = Chat(*make_app(broker_url="memory://", history_size=5))
    with chat.app.test_request_context():
        run = chat.sse.start(gated(chat, *range(20), "text"), "k")
        eventually(lambda: len(published(chat.app, "run:k")) == 5)
        eventually(lambda: published(chat.app, "run:k")[0].type == "run.item")
        starter = Body(run.response("ai-sdk"))
    for body in (starter.rest(), chat.get("ai-sdk").rest()):
        assert [chunk["type"] for chunk in body.chunks] == ["start", "error"]
        assert "no longer there" in body.chunks[-1]["errorText"]
    chat.gate.set()


@pytest.mark.parametrize("reconnect", [True, False])
def test_a_reader_that_the_app_closes_is_told_so(chat: Chat, reconnect: bool) -> None:
    chat.items = gated(chat, "text")
    body = chat.post("ai-sdk")
    eventually(lambda: body.text == "text")
    with chat.app.app_context():
        chat.sse.disconnect(channel="run:k", reconnect=reconnect)
    types = [chunk["type"] for chunk in body.rest().chunks]
    assert types == ["start", "text-start", "text-delta", "text-end", "error"]
    told = body.chunks[-1]["errorText"]
    assert ("can be read again" in told) is reconnect
    assert body.lines[-1] == "[DONE]"
    again = chat.get("ai-sdk")  # the run goes on
    eventually(lambda: again.text == "text")
    chat.gate.set()
    assert again.rest().chunks[-1] == {"type": "finish"}


def test_unknown_formats_keys_and_runs_are_refused(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    assert chat.app.test_client().get("/chat/nobody/ai-sdk").status_code == 204
    with chat.app.test_request_context():
        with pytest.raises(ValueError, match="the format is 'html', must be one of"):
            chat.sse.resume("k", "html")
        for no_key in ("", "k" * 300, "two\nlines"):  # a key may come from the client
            assert chat.sse.resume(no_key, "ai-sdk").status_code == 204
        with pytest.raises(ValueError, match="the format is 'html', must be one of"):
            chat.sse.start([], "k").response("html")
    with pytest.raises(RuntimeError, match=r"only a run that sse\.start has returned"):
        Run("k", "run:k", "earliest", False).response("ai-sdk")


def test_a_run_whose_format_is_wrong_does_not_start(chat: Chat) -> None:
    chat.items = gated(chat, "text", after=(" more",))
    with chat.app.test_request_context():
        for wrong in ("html", ""):
            with pytest.raises(ValueError, match=f"the format is '{wrong}', must be one of"):
                chat.sse.start(chat.items, "k", format=wrong)
        assert chat.get("ai-sdk").response.status_code == 204, "no run is under way"
        run = chat.sse.start(chat.items, "k", format="ai-sdk")
        body = Body(run.response())
        chat.gate.set()
        assert body.rest().text == "text more"
        with pytest.raises(TypeError, match=r"give the format to sse\.start or to response"):
            chat.sse.start([], "other").response()


def test_a_last_event_id_from_the_future_does_no_harm_to_other_readers(chat: Chat) -> None:
    chat.items = gated(chat, "text", after=(" more",))
    with chat.app.test_request_context():
        chat.sse.start(chat.items, "k")
    strange = chat.get("ai-sdk", **{"Last-Event-ID": "abc-zzzzzzzzzz"})
    eventually(lambda: strange.text == "text")
    body = chat.get("ai-sdk")
    eventually(lambda: body.text == "text")
    chat.gate.set()
    assert body.rest().text == "text more"
    assert strange.rest().text == "text more"


def test_a_last_event_id_of_another_run_gives_the_whole_run(chat: Chat) -> None:
    chat.items = gated(chat, "text", after=(" more",))
    with chat.app.test_request_context():
        chat.sse.start(chat.items, "k")
    first = chat.get("ai-sdk")
    eventually(lambda: first.text == "text")
    with chat.app.app_context():
        elsewhere = chat.sse.publish("x", channel="elsewhere")
    number = elsewhere.partition("-")[2]
    strange = [chat.get("ai-sdk", **{"Last-Event-ID": each}) for each in (elsewhere, f"old-{number}")]
    chat.gate.set()
    assert [each.rest().text for each in [first, *strange]] == ["text more"] * 3


def test_head_opens_no_stream_and_other_events_do_not_come(chat: Chat) -> None:
    chat.items = gated(chat, "text")
    body = chat.post("ai-sdk")
    eventually(lambda: body.text == "text")
    assert chat.client.head("/chat/k/ai-sdk").status_code == 200
    with chat.app.app_context():
        (stream,) = chat.sse.connections()
        chat.sse.join(stream["connection"], "news")
        chat.sse.publish("strange", channel="news")
        chat.sse.broadcast("strange")
        chat.sse.publish("strange", channel="run:k")
    chat.gate.set()
    assert "strange" not in body.rest().data.decode()
    assert "sse." not in body.data.decode()
    assert body.chunks[-1] == {"type": "finish"}


@pytest.mark.parametrize("pieces", [990, 9990])
def test_ten_thousand_tokens_are_resumed_with_few_events_from_any_cursor(
    make_app: MakeApp, empty_valkey: str, pieces: int
) -> None:
    """A long history is read in several pages, and each page is joined alone."""
    app, sse = make_app(broker_url=empty_valkey, public_channels=["run:*"], history_size=pieces)
    client = SSEClient(app)
    tokens = [f"token{n} " for n in range(10_000)]
    size = 10_000 // pieces
    texts = ["".join(tokens[at : at + size]) for at in range(0, 10_000, size)][:pieces]
    texts[-1] += "".join(tokens)[len("".join(texts)) :]
    events = [{"data": {"text": text}, "type": "run.text", "channel": "run:k"} for text in texts]
    with app.app_context():
        cursors = [
            cursor for at in range(0, pieces, 500) for cursor in sse.publish_many(events[at : at + 500])
        ]
    for at in (0, 1, pieces // 2, pieces - 2):
        with client.open("run:k", cursor=cursors[at]) as stream:
            received = stream.received()
        assert len(received) <= (5 if pieces < 1000 else 50)
        assert "".join(event.json()["text"] for event in received) == "".join(texts[at + 1 :])


@pytest.mark.parametrize("format", FORMATS)
def test_a_generator_for_one_response_is_written_in_the_same_way(make_app: MakeApp, format: str) -> None:
    chat = Chat(*make_app(broker_url="memory://"))
    items = ["Hel", "lo", CALL, {**RESULT, "output": date(2026, 1, 31)}, ("step", 1), {"done": 1}]
    chat.items = lambda: iter(items)
    with chat.app.test_request_context():
        body = Body(chat.sse.stream(chat.items, format)).rest()
        failing = Body(chat.sse.stream([CALL, {"type": "file"}], format)).rest()
        with pytest.raises(ValueError, match="the format is 'html', must be one of"):
            chat.sse.stream([], "html")
    assert body.text == "Hello"
    run = chat.post(format).rest()
    kinds = [sorted(chunk) for chunk in run.chunks]
    assert [kind for kind in map(sorted, body.chunks) if kind not in kinds] == []
    assert (body.lines[-1] == "[DONE]") is (format != "ag-ui")
    assert "InvalidEvent" in str(failing.chunks[-1])
    vercel = "X-Vercel-AI-UI-Message-Stream"
    assert body.response.headers.get(vercel) == ("v1" if format == "ai-sdk" else None)


def test_a_revoke_ends_the_reader_and_the_next_request_is_the_views_own_decision(make_app: MakeApp) -> None:
    app, sse = make_app(broker_url="memory://", recheck=1.0)
    asked: list[str] = []
    renewed: list[str] = []

    def renew() -> str:
        renewed.append("ada")
        return "ada"

    sse.identify(lambda request: Identity("ada", renew=renew))

    @sse.authorize
    def allowed(user: Any, channel: str) -> bool:
        asked.append(channel)
        return False

    chat = Chat(app, sse)
    chat.items = gated(chat, "text", after=(" more",))
    first = chat.post("ai-sdk")
    eventually(lambda: first.text == "text")
    eventually(lambda: renewed)  # a recheck came: it asks for the user, but not for the channel
    with app.app_context():
        assert [stream["user_id"] for stream in sse.connections()] == ["ada"]
        sse.revoke("ada")
    assert first.rest().chunks[-1] == {"type": "error", "errorText": "the right to read this run has ended"}
    again = chat.get("ai-sdk")
    eventually(lambda: again.text == "text")
    chat.gate.set()
    assert again.rest().text == "text more"
    assert asked == []


def test_readers_get_an_error_when_the_broker_loses_its_data(make_app: MakeApp, empty_valkey: str) -> None:
    chat = Chat(*make_app(broker_url=empty_valkey))
    chat.items = gated(chat, "text", after=(" more",))
    body = chat.post("ai-sdk")
    eventually(lambda: body.text == "text")
    with redis.Redis.from_url(empty_valkey) as client:
        client.flushall()
    chat.gate.set()
    types = [chunk["type"] for chunk in body.rest().chunks]
    assert types == ["start", "text-start", "text-delta", "text-end", "error"]
    assert "no longer there" in body.chunks[-1]["errorText"]


def test_the_longest_id_of_a_run_reaches_the_end_and_a_longer_one_is_refused(chat: Chat) -> None:
    """The id of `run.end` for the broker is longer than the run's own id."""
    with chat.app.test_request_context():
        run = chat.sse.start(["text"], "k", id="x" * 100)
        body = Body(run.response("ai-sdk")).rest()
        with pytest.raises(InvalidEvent, match=r"^id: has 101 characters, must have at most 100$"):
            chat.sse.start([], "k", id="x" * 101)
    assert body.chunks[0] == {"type": "start", "messageId": "x" * 100}
    assert body.chunks[-1] == {"type": "finish"}


def test_runs_that_share_an_id_all_come_to_their_end(chat: Chat) -> None:
    """An app should choose a new id for each run. If it does not, no reader may wait for ever."""
    with chat.app.test_request_context():
        both = [chat.sse.start(gated(chat, key), key, id="same") for key in "ab"]
        bodies = [Body(run.response("ai-sdk")) for run in both]
        eventually(lambda: [body.text for body in bodies] == ["a", "b"])
        chat.gate.set()
        bodies = [body.rest() for body in bodies]
        eventually(lambda: chat.get("ai-sdk", "a").response.status_code == 204)
        bodies.append(Body(chat.sse.start(["again"], "a", id="same").response("ai-sdk")).rest())
    assert [body.chunks[-1] for body in bodies] == [{"type": "finish"}] * 3
    assert [body.text for body in bodies] == ["a", "b", "again"]
