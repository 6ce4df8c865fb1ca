"""Pieces of text are joined for readers that come late: the same text, in the same order, within bounds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.protocol import batch
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.runs import joining
from flask_sse_push.runs.joining import JOINING, join_pieces
from tests.support.run_entries import entry, run_entries

REASONING = {"type": "reasoning", "text": "r"}


def texts(entries: list[Entry]) -> list[tuple[int, str, Any]]:
    """Returns the id, the type and the data of each entry."""
    found = []
    for each in entries:
        message, _ = batch.message_of(each.frame)
        assert message["id"] == each.cursor
        assert message["data"].endswith("\t")  # the mark of JSON
        found.append((each.id, message["type"], json.loads(message["data"])))
    return found


def test_neighbours_of_one_kind_become_one_event_with_the_cursor_of_the_last() -> None:
    entries = run_entries(["a", "b", REASONING, REASONING, "c", ("step", 1), "d", "\ud83d", "\ude00"])
    assert texts(list(join_pieces(entries, 0))) == [
        (10, "run.begin", {"run": "r1"}),
        (12, "run.text", {"text": "ab"}),
        (14, "run.item", {"type": "reasoning", "text": "rr"}),
        (15, "run.text", {"text": "c"}),
        (16, "step", 1),
        (19, "run.text", {"text": "d\U0001f600"}),
        (20, "run.end", {"run": "r1", "status": "done", "error": None}),
    ]


def test_what_is_not_a_plain_piece_of_a_run_is_never_joined() -> None:
    text = {"text": "x"}
    entries = [
        entry(1, "run.text", text, "run:a"),
        entry(2, "run.text", text, "run:b"),
        entry(3, "run.text", text, "news"),
        entry(4, "run.text", text, "news"),
        entry(5, "run.text", text, exclude=frozenset({"7"})),
        entry(6, "run.text", text),
        entry(7, "run.text", text, expires=10**18),
        entry(8, "run.text", text),
        entry(9, "run.text", text, shared=True),
        entry(10, "run.text", {"text": "x", "more": 1}),
        entry(11, "run.text", {"text": 1}),
        entry(12, "run.text", "x"),
        entry(13, "run.item", {**REASONING, "signature": "s"}),
        entry(14, "run.item", {"reasoning": 1}),
        entry(15, "run.item", REASONING),
    ]
    assert list(join_pieces(entries, 0)) == entries
    assert JOINING.concerns(("news", "run:a"))
    assert not JOINING.concerns(("news", "*"))


def test_a_joined_event_has_a_bound() -> None:
    entries = run_entries(["x" * 10_000] * 100)
    joined = list(join_pieces(entries, 0))
    assert all(len(each.frame) <= joining.MAX_PIECE + 100 for each in joined)
    assert len(joined) < 10
    assert "".join(data.get("text", "") for _, _, data in texts(joined)) == "x" * 1_000_000


@given(
    st.lists(st.one_of(st.text(max_size=2), st.just(REASONING), st.just(("step", 1))), max_size=15),
    st.integers(9, 30),
)
def test_the_text_after_any_cursor_is_the_same(items: list[Any], boundary: int) -> None:
    entries = run_entries(items)
    joined = list(join_pieces(entries, boundary))
    assert [each.id for each in joined] == sorted({each.id for each in joined})

    def after(some: list[Entry], cursor: int) -> tuple[str, str, int]:
        rest = [(type, data) for id, type, data in texts(some) if id > cursor]
        text = "".join(data["text"] for type, data in rest if type == "run.text")
        reasoning = "".join(data["text"] for type, data in rest if type == "run.item")
        return text, reasoning, sum(type == "step" for type, _ in rest)

    assert after(joined, 0) == after(entries, 0)
    assert after(joined, boundary) == after(entries, boundary)
    for each in joined:  # a client may come back with the cursor of any event that it got
        assert after(joined, each.id) == after(entries, each.id)
