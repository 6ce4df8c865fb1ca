"""Events of datastar-py are published unchanged: their type, each of their data lines, their `retry:`."""

from __future__ import annotations

import pytest
from datastar_py import ServerSentEventGenerator as datastar
from datastar_py.consts import ElementPatchMode
from datastar_py.sse import DatastarEvent

from flask_sse_push.errors import InvalidEvent
from flask_sse_push.protocol.event import make_event

EVENTS = [
    datastar.patch_elements("<li>1</li>"),
    datastar.patch_elements(
        "<ul>\n  <li>é</li>\n\n</ul>", "#orders", ElementPatchMode.APPEND, use_view_transition=True
    ),
    datastar.remove_elements("#order-7"),
    datastar.patch_signals({"count": 7, "text": "a\nb: c"}),
    datastar.execute_script("alert(1)"),
    datastar.redirect("/login"),
    datastar.patch_elements("<p>\x85\u2028</p>", retry_duration=250),
]


@pytest.mark.parametrize("event", EVENTS)
def test_the_lines_on_the_wire_are_those_of_datastar(event: DatastarEvent) -> None:
    assert make_event(event).encode().decode() == event


def test_the_retry_of_publish_counts_before_the_own_one() -> None:
    event = datastar.patch_signals({}, retry_duration=250)
    assert (make_event(event).retry_ms, make_event(event, retry=20).retry_ms) == (250, 20)


@pytest.mark.parametrize(
    ("event", "field", "said"),
    [
        (
            datastar.patch_signals({}, event_id="7"),
            "data",
            "with the id '7', but the server gives each event its own id",
        ),
        (datastar.remove_elements("a\nid: 9"), "data", "with the id '9'"),
        (datastar.remove_elements("a\nb"), "data", "with the line 'b'; a selector has no line ends"),
        (datastar.patch_signals({}, retry_duration=-5), "data", "with the line 'retry: -5'"),
        (DatastarEvent("data: x\n\n"), "data", "without its line `event:`"),
        (DatastarEvent("event: sse.open\ndata: x\n\n"), "type", "is reserved"),
    ],
)
def test_what_cannot_be_published_is_refused(event: DatastarEvent, field: str, said: str) -> None:
    with pytest.raises(InvalidEvent, match=field) as refused:
        make_event(event)
    assert said in str(refused.value)


def test_a_second_type_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="has the type 'datastar-patch-signals'"):
        make_event(datastar.patch_signals({}), "mine")


def test_a_string_that_only_looks_like_an_event_is_text() -> None:
    text = str(EVENTS[0])
    assert make_event(text).data == text


@pytest.mark.parametrize(
    "several", [EVENTS[0] + EVENTS[3], "".join(EVENTS[:2]), EVENTS[:2], tuple(EVENTS[:1])]
)
def test_several_events_in_one_are_refused(several: object) -> None:
    with pytest.raises(InvalidEvent, match="has several events of datastar-py; publish each of them"):
        make_event(several)
