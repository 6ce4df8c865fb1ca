"""Items of producers become events: text is joined, sizes are limited, the order stays."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from markupsafe import Markup

from flask_sse_push import InvalidEvent, MessageAnnouncer, MessageTooLarge
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.runs.output import FULL, MAX_WAITING, Output, end_data, event_of
from flask_sse_push.testing import Parser
from tests.support.deadline import eventually


def make(max_message: int = 10_000) -> Output:
    announcer = MessageAnnouncer.from_url("memory://", SSE_PUSH_MAX_MESSAGE=max_message)
    return Output(announcer, "run:1", max_message)


def read(publications: list[Publication]) -> list[tuple[str, Any]]:
    assert all(publication.channels == ("run:1",) for publication in publications)
    events = Parser().feed(b"".join(publication.body for publication in publications))
    return [(event.type, event.json()) for event in events]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a", ("run.text", {"text": "a"})),
        ({"done": 1}, ("run.item", {"done": 1})),
        (("step", 2), ("step", 2)),
        ((1, 2), ("run.item", (1, 2))),
        (["step", 2], ("run.item", ["step", 2])),
        (None, ("run.item", None)),
    ],
)
def test_an_item_has_its_event(item: object, expected: tuple[str, object]) -> None:
    assert event_of(item) == expected


def test_neighbouring_strings_are_joined_and_keep_their_place() -> None:
    output = make()
    for item in ("a", "b\n", "", "1", {"n": 1}, "c", ("step", {"x": 1}), ("step", 2)):
        assert output.put(item)
    assert read(output.take(100)) == [
        ("run.text", {"text": "ab\n1"}),
        ("run.item", {"n": 1}),
        ("run.text", {"text": "c"}),
        ("step", {"x": 1}),
        ("step", 2),
    ]
    assert len(output) == 0
    assert output.take(100) == []


def test_neighbouring_pieces_of_reasoning_are_joined_like_text() -> None:
    output = make(max_message=600)
    piece = {"type": "reasoning", "text": "hm "}
    for item in (piece, piece, "a", Markup("<b>"), piece, {**piece, "signature": "s"}, {**piece, "text": ""}):
        assert output.put(item)
    assert read(output.take(100)) == [
        ("run.item", {"type": "reasoning", "text": "hm hm "}),
        ("run.text", {"text": "a<b>"}),
        ("run.item", piece),
        ("run.item", {**piece, "signature": "s"}),
    ]
    output.put({"type": "reasoning", "text": "x" * 2000})
    events = read(output.take(100))
    assert 3 < len(events) < 7
    assert "".join(data["text"] for _, data in events) == "x" * 2000


def test_an_item_in_the_neutral_form_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"(?m)^item: has the type 'tool_call', but no 'id'$"):
        make().put({"type": "tool_call", "name": "weather", "input": {}})


@pytest.mark.parametrize("text", ["a" * 5000, "ÿ" * 5000, "👋" * 5000, '"' * 5000])
def test_long_text_is_cut_into_events_that_fit(text: str) -> None:
    output = make(max_message=600)
    output.put(text)
    output.put("end")
    taken: list[Publication] = []
    while piece := output.take(7):
        assert len(piece) <= 7
        taken += piece
    events = read(taken)
    assert "".join(data["text"] for _, data in events) == text + "end"
    assert len(events) > 5
    assert all(len(json.dumps(data)) <= 600 for _, data in events)


@pytest.mark.parametrize(
    ("text", "bytes_each"),
    [("a", 1), ("ÿ", 6), ("👋", 12), ('"', 2), ("ab\n", 4 / 3), ("a" * 5000 + "👋" * 5000, 6.5)],
)
def test_text_takes_no_more_events_than_its_bytes_need(text: str, bytes_each: float) -> None:
    output = make()
    for _ in range(10):
        output.put((text * 10_000)[:10_000])
    events = read(output.take(1000))
    assert "".join(data["text"] for _, data in events) == (text * 10_000)[:10_000] * 10
    assert len(events) <= 100_000 * bytes_each / (FULL * 10_000) + 2


def test_a_character_that_is_larger_than_an_event_raises_and_ends_the_wait() -> None:
    output = make(max_message=20)
    output.put("a👋")
    assert read(output.take(1)) == [("run.text", {"text": "a"})]
    with pytest.raises(MessageTooLarge):
        output.take(1)
    assert len(output) == 0


def test_the_error_names_the_item_and_the_setting() -> None:
    output = make(max_message=100)
    output.put("text")
    with pytest.raises(MessageTooLarge, match="SSE_PUSH_MAX_MESSAGE allows 100;") as raised:
        output.put({"type": "tool_result", "id": "1", "output": "secret" * 50})
    assert raised.value.__notes__ == ["The run failed at item 2 of its generator, of the type 'tool_result'."]


def test_an_item_that_cannot_be_sent_raises_in_the_producer() -> None:
    output = make(max_message=100)
    with pytest.raises(MessageTooLarge):
        output.put({"text": "x" * 200})
    with pytest.raises(InvalidEvent, match="kept for runs"):
        output.put(("run.end", {}))
    with pytest.raises(InvalidEvent, match="reserved for the protocol"):
        output.put(("sse.close", {}))
    with pytest.raises(InvalidEvent, match="JSON"):
        output.put({"set": {1}})
    assert len(output) == 0


@pytest.mark.parametrize("item", ["x" * 1000, {"x": "x" * 1000}])
def test_a_producer_waits_while_the_output_is_full(item: object) -> None:
    output = make()
    put = 0

    def produce() -> None:
        nonlocal put
        while output.put(item):
            put += 1

    thread = threading.Thread(target=produce)
    thread.start()
    eventually(lambda: put >= MAX_WAITING / 1100)
    thread.join(0.05)
    before = put
    assert before <= MAX_WAITING / 1000 + 1
    output.take(10)
    eventually(lambda: put > before)
    output.close()
    thread.join(60)
    assert not thread.is_alive()
    assert not output.put("more")
    assert output.take(1)


def test_the_end_names_only_the_class_of_the_error() -> None:
    assert end_data("r", "failed", "ValueError") == {"run": "r", "status": "failed", "error": "ValueError"}


def test_items_put_during_take_wait_for_the_next_take() -> None:
    """Otherwise each string of a producer that is as fast as the sending thread would be sent alone."""

    class Busy(Output):
        def _publication(self, announcer: MessageAnnouncer, type: str, data: Any) -> Publication:
            self.put("more")
            return super()._publication(announcer, type, data)

    output = Busy(MessageAnnouncer.from_url("memory://"), "run:1", 10_000)
    output.put("first")
    assert read(output.take(100)) == [("run.text", {"text": "first"})]
    assert len(output) == 1
