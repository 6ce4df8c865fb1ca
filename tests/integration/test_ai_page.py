"""The server of docs/ai.md, and its generator that stores the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_sse_push import sse
from tests.support.pages import block

QUESTION = {"id": "c1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Why?"}]}]}
ANSWER = "Each word comes when the model has it."


@pytest.fixture
def app() -> Iterator[Flask]:
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(block("docs/ai.md", "python", "def resume(chat)").replace("sleep(0.2)", "sleep(0.02)"), namespace)
    app: Flask = namespace["app"]
    yield app
    with app.app_context():
        sse.services.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def objects(text: str) -> list[dict[str, Any]]:
    """Returns the JSON objects of a stream, which must end with `[DONE]`."""
    *events, done = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def test_an_answer_is_sent_whole_resumed_and_then_there_is_nothing_to_resume(client: FlaskClient) -> None:
    first = client.post("/api/chat", json=QUESTION)
    assert first.headers["X-Vercel-AI-UI-Message-Stream"] == "v1"
    resumed = client.get("/api/chat/c1/stream")
    for response in (resumed, first):
        found = objects(response.text)
        assert "".join(each["delta"] for each in found if each["type"] == "text-delta") == ANSWER
        assert (found[0]["type"], found[-1]["type"]) == ("start", "finish")
    assert client.get("/api/chat/c1/stream").status_code == 204


def test_stop_ends_the_answer_and_another_user_can_neither_read_nor_stop_it(
    app: Flask, client: FlaskClient
) -> None:
    first = client.post("/api/chat", json=QUESTION)
    stranger = app.test_client()
    assert stranger.get("/api/chat/c1/stream").status_code == 204
    assert stranger.post("/api/chat/c1/stop").status_code == 204
    assert client.get("/api/chat/c1/stream").status_code == 200
    assert client.post("/api/chat/c1/stop").status_code == 204
    assert objects(first.text)[-1]["type"] == "abort"


@pytest.mark.parametrize("ends", ["whole", "stopped", "failed"])
def test_the_generator_that_stores_keeps_what_it_has_yielded(ends: str) -> None:
    saved: list[Any] = []
    namespace: dict[str, Any] = {"save": lambda *stored: saved.append(stored)}
    exec(block("docs/ai.md", "python", "def kept("), namespace)

    def items() -> Iterator[Any]:
        yield from ("a", {"type": "reasoning", "text": "no"}, "b")
        if ends == "failed":
            raise RuntimeError
        yield "c"

    stored = namespace["kept"]("c1", "id1", items())
    if ends == "failed":
        with pytest.raises(RuntimeError):
            list(stored)
    else:
        for item in stored:
            if ends == "stopped" and item == "b":
                stored.close()
    text = "abc" if ends == "whole" else "ab"
    message = {"id": "id1", "role": "assistant", "parts": [{"type": "text", "text": text}]}
    assert saved == [("c1", message)]


def test_a_chat_id_that_no_key_can_have_is_refused(client: FlaskClient) -> None:
    refused = client.post("/api/chat", json=QUESTION | {"id": "a chat"})
    assert refused.status_code == 400
    assert "does not fit into a channel's name" in refused.text
