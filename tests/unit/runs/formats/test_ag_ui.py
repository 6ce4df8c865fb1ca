"""The format `ag-ui`: what each item of a run becomes in AG-UI."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_push.runs.formats.ag_ui import RunWriter
from flask_sse_push.runs.formats.writer import RunFacts
from flask_sse_push.runs.output import event_of

CALL = {"type": "tool_call", "id": "c", "name": "weather", "input": {"city": "Bonn"}}
CALLED = [
    {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "weather"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": '{"city":"Bonn"}'},
    {"type": "TOOL_CALL_END", "toolCallId": "c"},
]
TEXT = [
    {"type": "TEXT_MESSAGE_START", "messageId": "r-1", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "r-1", "delta": "a"},
    {"type": "TEXT_MESSAGE_END", "messageId": "r-1"},
]
RUN = {"threadId": "k", "runId": "r"}


def written(*items: Any, end: tuple[str, str | None] = ("done", None)) -> list[Any]:
    """Returns the events of a run between its beginning and its end."""
    writer = RunWriter(RunFacts("k", "r", 7))
    events = writer.begin()
    for item in items:
        events += writer.item(*event_of(item))
    assert events[0] == {"type": "RUN_STARTED", **RUN}
    return [*events[1:], *writer.end(*end)]


def result(content: str) -> dict[str, str]:
    return {
        "type": "TOOL_CALL_RESULT", "messageId": "r-1", "toolCallId": "c", "content": content, "role": "tool"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        (["a"], TEXT),
        (
            [{"type": "reasoning", "text": "hm"}],
            [
                {"type": "REASONING_START", "messageId": "r-1"},
                {"type": "REASONING_MESSAGE_START", "messageId": "r-1", "role": "reasoning"},
                {"type": "REASONING_MESSAGE_CONTENT", "messageId": "r-1", "delta": "hm"},
                {"type": "REASONING_MESSAGE_END", "messageId": "r-1"},
                {"type": "REASONING_END", "messageId": "r-1"},
            ],
        ),
        ([CALL, {"type": "tool_result", "id": "c", "output": {"n": 1}}], [*CALLED, result('{"n":1}')]),
        ([CALL, {"type": "tool_result", "id": "c", "output": "text"}], [*CALLED, result("text")]),
        ([CALL, {"type": "tool_result", "id": "c", "error": "no"}], [*CALLED, result("no")]),
        ([{"type": "tool_result", "id": "unknown", "output": 1}], []),
        (
            [{"type": "source", "url": "u", "title": "t"}],
            [{"type": "CUSTOM", "name": "source", "value": {"url": "u", "title": "t"}}],
        ),
        (
            [{"type": "file", "url": "u", "media_type": "image/png"}],
            [{"type": "CUSTOM", "name": "file", "value": {"url": "u", "media_type": "image/png"}}],
        ),
        (
            [{"type": "data", "name": "n", "data": [1], "id": "i"}],
            [{"type": "CUSTOM", "name": "n", "value": [1]}],
        ),
        ([{"done": 1}, ("step", 1), 7], []),
    ],
)
def test_each_item_has_its_events(items: list[Any], expected: list[Any]) -> None:
    assert written(*items) == [*expected, {"type": "RUN_FINISHED", **RUN}]


def test_each_end_closes_the_open_message_first() -> None:
    assert written("a", end=("stopped", None)) == [*TEXT, {"type": "RUN_FINISHED", **RUN}]
    failed = {"type": "RUN_ERROR", "message": "the run failed: KeyError", "code": "KeyError"}
    assert written("a", end=("failed", "KeyError")) == [*TEXT, failed]
    assert RunWriter.done_mark is None
