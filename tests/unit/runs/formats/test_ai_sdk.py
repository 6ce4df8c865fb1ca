"""The format `ai-sdk`: what each item of a run becomes in AI SDK's UI message stream."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_push.runs.formats.ai_sdk import RunWriter
from flask_sse_push.runs.formats.writer import RunFacts
from flask_sse_push.runs.output import event_of

CALL = {"type": "tool_call", "id": "c", "name": "weather", "input": {"city": "Bonn"}}
CALLED = {"type": "tool-input-available", "toolCallId": "c", "toolName": "weather", "input": {"city": "Bonn"}}


def written(*items: Any, end: tuple[str, str | None] = ("done", None)) -> list[Any]:
    """Returns the chunks of a run between its beginning and its end."""
    writer = RunWriter(RunFacts("k", "r", 7))
    chunks = writer.begin()
    for item in items:
        chunks += writer.item(*event_of(item))
    assert chunks[0] == {"type": "start", "messageId": "r"}
    return [*chunks[1:], *writer.end(*end)]


FINISH = {"type": "finish"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        (
            ["a", "b"],
            [
                {"type": "text-start", "id": "r-1"},
                {"type": "text-delta", "id": "r-1", "delta": "a"},
                {"type": "text-delta", "id": "r-1", "delta": "b"},
                {"type": "text-end", "id": "r-1"},
            ],
        ),
        (
            [{"type": "reasoning", "text": "hm"}, "a"],
            [
                {"type": "reasoning-start", "id": "r-1"},
                {"type": "reasoning-delta", "id": "r-1", "delta": "hm"},
                {"type": "reasoning-end", "id": "r-1"},
                {"type": "text-start", "id": "r-2"},
                {"type": "text-delta", "id": "r-2", "delta": "a"},
                {"type": "text-end", "id": "r-2"},
            ],
        ),
        (
            [CALL, {"type": "tool_result", "id": "c", "output": [1]}],
            [CALLED, {"type": "tool-output-available", "toolCallId": "c", "output": [1]}],
        ),
        (
            [CALL, {"type": "tool_result", "id": "c", "error": "no"}, CALL],
            [
                CALLED,
                {"type": "tool-output-error", "toolCallId": "c", "errorText": "no"},
                {"type": "start-step"},
                CALLED,
            ],
        ),
        ([{"type": "tool_result", "id": "unknown", "output": 1}], []),
        (
            [{"type": "source", "url": "u"}, {"type": "source", "url": "v", "title": "t"}],
            [
                {"type": "source-url", "sourceId": "source-1", "url": "u"},
                {"type": "source-url", "sourceId": "source-2", "url": "v", "title": "t"},
            ],
        ),
        (
            [{"type": "file", "url": "u", "media_type": "image/png"}],
            [{"type": "file", "url": "u", "mediaType": "image/png"}],
        ),
        (
            [{"type": "data", "name": "n", "data": 1}, {"type": "data", "name": "n", "data": 2, "id": "i"}],
            [{"type": "data-n", "data": 1}, {"type": "data-n", "data": 2, "id": "i"}],
        ),
        ([{"done": 1}, ("step", 1), 7, None, {"type": "other"}, {"type": 1}], []),
    ],
)
def test_each_item_has_its_chunks(items: list[Any], expected: list[Any]) -> None:
    assert written(*items) == [*expected, FINISH]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (("stopped", None), {"type": "abort"}),
        (("failed", "KeyError"), {"type": "error", "errorText": "the run failed: KeyError"}),
        (("failed", "WorkerLost"), {"type": "error", "errorText": "the run failed: WorkerLost"}),
    ],
)
def test_each_end_closes_the_open_part_first(end: tuple[str, str | None], expected: object) -> None:
    assert written("a", end=end)[-2:] == [{"type": "text-end", "id": "r-1"}, expected]
    assert RunWriter.done_mark == "[DONE]"
    assert RunWriter.headers == {"X-Vercel-AI-UI-Message-Stream": "v1"}
