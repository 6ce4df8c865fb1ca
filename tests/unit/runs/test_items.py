"""The neutral form: which items belong to it, and which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_push import InvalidEvent
from flask_sse_push.runs import items
from flask_sse_push.runs.formats import writer_class
from flask_sse_push.runs.formats.writer import RunFacts
from flask_sse_push.runs.items import Reasoning, check, kind_of, reasoning_of

CALL = {"type": "tool_call", "id": "c", "name": "n", "input": None}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "text": ""},
        CALL,
        {**CALL, "more": 1},
        {"type": "tool_result", "id": "c", "output": None},
        {"type": "tool_result", "id": "c", "error": "e"},
        {"type": "source", "url": "u", "title": None},
        {"type": "file", "url": "u", "media_type": "m"},
        {"type": "data", "name": "n", "data": None, "id": "i"},
    ],
)
def test_items_in_the_neutral_form_are_known(item: Any) -> None:
    check(item)
    assert kind_of(item) == item["type"]


@pytest.mark.parametrize(
    "item", [{"type": "other"}, {"type": 1}, {"type": ["data"]}, {}, "reasoning", 1, None]
)
def test_all_other_items_are_the_apps_own(item: Any) -> None:
    check(item)
    assert kind_of(item) is None


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"type": "reasoning"}, "has the type 'reasoning', but no 'text'"),
        (
            {"type": "reasoning", "text": None},
            "has the type 'reasoning', and its 'text' is None, must be text",
        ),
        ({"type": "tool_call", "name": "n", "input": 1}, "has the type 'tool_call', but no 'id'"),
        ({**CALL, "id": 7}, "has the type 'tool_call', and its 'id' is 7, must be text"),
        ({"type": "tool_result", "id": "c"}, "must have either 'output' or 'error'"),
        (
            {"type": "tool_result", "id": "c", "output": 1, "error": "e"},
            "must have either 'output' or 'error'",
        ),
        ({"type": "tool_result", "id": "c", "error": 1}, "its 'error' is 1, must be text"),
        ({"type": "source"}, "has the type 'source', but no 'url'"),
        ({"type": "source", "url": "u", "title": 1}, "its 'title' is 1, must be text"),
        ({"type": "file", "url": "u"}, "has the type 'file', but no 'media_type'"),
        ({"type": "data", "name": "", "data": 1}, "its 'name' is empty"),
        ({"type": "data", "name": "n", "data": 1, "id": 1}, "its 'id' is 1, must be text"),
    ],
)
def test_a_missing_or_wrong_field_is_named(item: Any, problem: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        check(item)
    assert caught.value.field == "item"
    assert problem in caught.value.problem


def test_only_an_item_with_nothing_but_reasoning_can_be_joined() -> None:
    assert reasoning_of({"type": "reasoning", "text": "a"}) == Reasoning("a")
    assert reasoning_of({"type": "reasoning", "text": "a", "signature": "s"}) is None
    assert reasoning_of({"type": "data", "text": "a"}) is None


@pytest.mark.parametrize(
    ("type", "advice"), [("tool-call", "Did you mean 'tool_call'?"), ("zzz", "The types are ")]
)
def test_the_log_says_once_that_formats_leave_an_item_out(
    type: str, advice: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "_named", set())
    writer = writer_class("ai-sdk")(RunFacts("k", "r", 0))
    for _ in range(2):
        assert writer.item("run.item", {"type": type}) == []
        assert writer.item("run.item", {"type": 5}) == writer.item("own", {"type": "own"}) == []
    (message,) = caplog.messages
    assert f"the type '{type}', which no format knows" in message
    assert advice in message
