"""A run in a format is the same for every reader, whenever it came and whatever it had read before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.runs.formats import FORMATS, writer_class
from flask_sse_push.runs.formats.encoder import RunEncoder
from flask_sse_push.runs.joining import join_pieces
from tests.support.run_entries import CHANNEL, entry, folded, objects_in, run_entries

TEXT = st.text(max_size=3)
ID = st.sampled_from(["c1", "c2"])
ITEMS = st.lists(
    st.one_of(
        TEXT,
        TEXT,
        TEXT,
        st.fixed_dictionaries({"type": st.just("reasoning"), "text": TEXT}),
        st.fixed_dictionaries({"type": st.just("tool_call"), "id": ID, "name": TEXT, "input": st.none()}),
        st.fixed_dictionaries({"type": st.just("tool_result"), "id": ID, "output": st.integers(0, 3)}),
        st.fixed_dictionaries({"type": st.just("tool_result"), "id": ID, "error": TEXT}),
        st.fixed_dictionaries({"type": st.just("source"), "url": TEXT}, optional={"title": TEXT}),
        st.fixed_dictionaries({"type": st.just("file"), "url": TEXT, "media_type": TEXT}),
        st.fixed_dictionaries({"type": st.just("data"), "name": st.just("n"), "data": st.integers(0, 3)}),
        st.sampled_from([{"done": 1}, ("step", 2), 3, None, {"type": "other"}]),
    ),
    max_size=12,
)
ENDS = st.sampled_from([("done", None), ("stopped", None), ("failed", "KeyError")])


def encoder(format: str, *runs: str, begun: Cursor | None = None, seen: Cursor | None = None) -> RunEncoder:
    return RunEncoder(writer_class(format), CHANNEL, "k", runs or ("r1",), begun, seen)


def read(made: RunEncoder, missed: list[Entry], live: list[Entry], seen: int = 0) -> bytes:
    """Returns the body that a reader gets: the missed events joined, then each event as it arrives."""
    body = made.opening() + made.encode(join_pieces(missed, seen)) + made.caught_up()
    return body + b"".join([made.encode([each]) for each in live])


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60)
@given(items=ITEMS, end=ENDS, data=st.data())
def test_each_reader_gets_the_same(format: str, items: list[Any], end: tuple[str, Any], data: Any) -> None:
    before = run_entries(["old"], run="r0", first=1)
    entries = run_entries(items, *end)
    whole = objects_in(read(encoder(format), [], entries))
    cut = data.draw(st.integers(0, len(entries)), label="cut")
    late = encoder(format)
    assert folded(objects_in(read(late, [*before, *entries[:cut]], entries[cut:]))) == folded(whole)
    assert late.ended
    starter = encoder(format, begun=entries[0].position)
    assert folded(objects_in(read(starter, entries[1:cut], entries[max(1, cut) :]))) == folded(whole)
    # A client that has read a part of the run resumes after it.
    had = data.draw(st.integers(1, len(entries)), label="had")
    seen = entries[had - 1].position
    first = read(encoder(format), [], entries[:had])
    again = read(encoder(format, seen=seen), [*before, *entries[:cut]], entries[cut:], seen.id)
    done = ["[DONE]"] * (format != "ag-ui" and had == len(entries))
    assert folded(objects_in(first) + objects_in(again)) == folded([*whole, *done])


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40)
@given(items=ITEMS, data=st.data())
def test_a_cursor_of_no_event_of_the_run_gives_the_whole_run(
    format: str, items: list[Any], data: Any
) -> None:
    entries = run_entries(items)
    cut = data.draw(st.integers(1, len(entries)), label="cut")
    at = data.draw(st.sampled_from(entries), label="at").position
    strange = data.draw(
        st.sampled_from([Cursor("other", at.id), Cursor(at.epoch, entries[-1].id + 1), Cursor("e", 0)])
    )
    whole = folded(objects_in(read(encoder(format), [], entries)))
    for begun in (None, entries[0].position):
        made = encoder(format, begun=begun, seen=strange)
        missed = entries[:cut] if begun is None else entries[1:cut]
        assert folded(objects_in(read(made, missed, entries[cut:], strange.id))) == whole


@pytest.mark.parametrize("format", FORMATS)
def test_the_text_so_far_is_one_piece(format: str) -> None:
    entries = run_entries(["word "] * 10_000)
    made = encoder(format)
    chunks = objects_in(made.opening() + made.encode(join_pieces(entries[:-1], 0)) + made.caught_up())
    assert len(chunks) <= 3
    assert "word " * 10_000 in str(chunks[-1])


@pytest.mark.parametrize("format", FORMATS)
def test_a_group_and_a_late_reader_may_share_an_encoder_when_both_have_the_same_events(format: str) -> None:
    entries = run_entries(["a", {"type": "reasoning", "text": "b"}, "c"])
    group, late = encoder(format, begun=entries[0].position), encoder(format, "r1", "r2")
    assert late.key != group.key
    for each in entries[1:3]:
        group.encode([each])
    late.encode(join_pieces(entries[:3], 0))
    assert late.key == group.key
    assert late.encode(entries[3:]) == group.encode(entries[3:])
    assert encoder("openai" if format != "openai" else "ai-sdk").key != encoder(format).key


def test_a_client_that_is_ahead_of_its_worker_shares_no_encoder_with_others() -> None:
    entries = run_entries(["a", "b"])
    ahead, behind = encoder("ai-sdk", seen=entries[2].position), encoder("ai-sdk", seen=entries[1].position)
    for made in (ahead, behind):
        made.encode(entries[:2])
    assert ahead.key != encoder("ai-sdk", begun=Cursor("e", 10)).key == behind.key
    assert objects_in(ahead.encode(entries[2:3])) == []
    assert ahead.key == behind.key
    assert objects_in(ahead.encode(entries[3:]))[-1] == "[DONE]"


@pytest.mark.parametrize("format", FORMATS)
def test_events_that_do_not_belong_to_the_run_are_left_out(format: str) -> None:
    entries = run_entries(["a", "b"])
    strange = [
        entry(100, "run.text", "no JSON"),
        entry(100, "run.text", {"text": 1}),
        entry(100, "run.item", [1]),
        entry(100, "run.item", {"type": "tool_call"}),
        entry(100, "run.end", {"run": "other", "status": "done"}),
        entry(100, "run.end", 1),
        entry(100, None, "hello"),
        entry(100, "run.text", {"text": "x"}, BROADCAST),
        entry(100, "run.text", {"text": "x"}, "run:other"),
    ]
    made = encoder(format)
    body = read(made, [], [*entries[:2], *strange, *entries[2:]])
    assert objects_in(body) == objects_in(read(encoder(format), [], entries))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", ["items", "end", "end of a run that failed"])
def test_a_run_whose_beginning_is_gone_ends_with_an_error(format: str, kept: str) -> None:
    entries = run_entries(["a", "b"], *(("failed", "KeyError") if "failed" in kept else ("done", None)))
    made = encoder(format)
    body = read(made, entries[1:-1] if kept == "items" else entries[-1:], [])
    assert made.ended
    chunks = objects_in(body)
    assert "a" not in [chunk for chunk in chunks if chunk == "a"]
    told = [chunk for chunk in chunks if "error" in str(chunk).lower()]
    assert len(told) == 1
    assert made.encode(entries) == b""


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_that_the_server_closes_says_so_and_the_group_goes_on(format: str) -> None:
    entries = run_entries(["a", "b"])
    made = encoder(format)
    begin = objects_in(read(made, [], entries[:2]))
    last = objects_in(made.closing("logout", reconnect=False))
    assert "signed out" in str(last)
    if format == "ag-ui":
        assert [chunk["type"] for chunk in last] == ["TEXT_MESSAGE_END", "RUN_ERROR"]
    else:
        assert last[-1] == "[DONE]"
    rest = objects_in(b"".join([made.encode([each]) for each in entries[2:]]))
    assert folded(begin + rest) == folded(objects_in(read(encoder(format), [], entries)))
    assert made.closing("drain", reconnect=True) == b""


def test_a_loss_on_another_channel_is_none_of_the_run() -> None:
    made = encoder("ai-sdk", begun=Cursor("e", 10))
    assert made.lose([BROADCAST]) == b""
    assert not made.ended
    assert objects_in(made.lose([CHANNEL, BROADCAST]))[-1] == "[DONE]"
    assert made.ended


def test_an_unknown_format_names_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"^the format is 'html', must be one of 'ai-sdk', 'ag-ui', 'openai'$"
    ):
        writer_class("html")
