"""Runs in the formats of front ends: whole responses, late readers, and how each response ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_sse_push import SSEBlueprint
from flask_sse_push.runs.run import Run
from tests.support.deadline import eventually

from .conftest import MakeApp

FORMATS = ("ai-sdk", "ag-ui", "openai")
CALL = {"type": "tool_call", "id": "c1", "name": "weather", "input": {"city": "Bonn"}}
RESULT = {"type": "tool_result", "id": "c1", "output": {"degrees": 21}}


class Body:
    """The body of a response, which a thread reads."""

    def __init__(self, response: TestResponse) -> None:
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
