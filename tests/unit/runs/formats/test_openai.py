"""The format `openai`: what each item of a run becomes in chat completion chunks."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_push.runs.formats.openai import RunWriter
from flask_sse_push.runs.formats.writer import RunFacts
from flask_sse_push.runs.output import event_of


def call(id: str) -> dict[str, Any]:
    return {"type": "tool_call", "id": id, "name": "weather", "input": {"city": "Bonn"}}


def called(index: int, id: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city":"Bonn"}'}
    return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}


def written(*items: Any, end: tuple[str, str | None] = ("done", None)) -> list[Any]:
    """Returns the chunks of a run after its beginning."""
    writer = RunWriter(RunFacts("k", "r", 7))
    chunks = writer.begin()
    for item in items:
        chunks += writer.item(*event_of(item))
    assert chunks[0]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    ]
    return [*chunks[1:], *writer.end(*end)]


@pytest.mark.parametrize(
    ("items", "deltas", "reason"),
    [
        ([], [], "stop"),
        (["a", "b"], [{"content": "a"}, {"content": "b"}], "stop"),
        ([call("c"), call("d"), call("c")], [called(0, "c"), called(1, "d")], "tool_calls"),
        ([call("c"), {"type": "tool_result", "id": "c", "output": 1}], [called(0, "c")], "stop"),
        ([{"type": "reasoning", "text": "hm"}, "a"], [{"content": "a"}], "stop"),
        ([{"type": "source", "url": "u"}, {"type": "data", "name": "n", "data": 1}], [], "stop"),
        ([{"type": "file", "url": "u", "media_type": "m"}, {"done": 1}, ("step", 1), 7], [], "stop"),
    ],
)
def test_each_item_has_its_chunks(items: list[Any], deltas: list[Any], reason: str) -> None:
    chunks = written(*items)
    choices = [chunk.pop("choices") for chunk in chunks]
    head = {"id": "chatcmpl-r", "object": "chat.completion.chunk", "created": 7, "model": "run"}
    assert all(chunk == head for chunk in chunks)
    assert choices == [
        *[[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas],
        [{"index": 0, "delta": {}, "finish_reason": reason}],
    ]


def test_a_run_that_was_stopped_or_failed_says_so() -> None:
    assert written("a", end=("stopped", None))[-1]["choices"][0]["finish_reason"] == "stop"
    error = {"message": "the run failed: KeyError", "type": "server_error", "param": None, "code": "KeyError"}
    assert written("a", end=("failed", "KeyError"))[-1] == {"error": error}
    assert RunWriter.done_mark == "[DONE]"
