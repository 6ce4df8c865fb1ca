"""The bytes of the event stream, and its response headers."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from flask_sse_push.errors import ErrorCode
from flask_sse_push.protocol.entry import event_frame
from flask_sse_push.protocol.event import Event
from flask_sse_push.protocol.frames import (
    RESETS,
    comment,
    control_frame,
    error_frame,
    jittered_ms,
    open_frame,
    reset_frame,
    retry_line,
)
from flask_sse_push.web.stream import HEADERS
from tests.support.memory import kept_by, sets_of_channels


class Fixed(random.Random):
    """Returns the same number every time."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("event", "body"),
    [
        # The examples of WHATWG HTML, 9.2.6.
        (Event("This is the first message."), b"data: This is the first message.\n\n"),
        (Event("YHOO\n+2\n10"), b"data: YHOO\ndata: +2\ndata: 10\n\n"),
        (Event("73857293", "add"), b"event: add\ndata: 73857293\n\n"),
        (Event("second event\n"), b"data: second event\ndata: \n\n"),
        (Event(" third event"), b"data:  third event\n\n"),
        (Event(""), b"data: \n\n"),
        (Event("\n"), b"data: \ndata: \n\n"),
        (Event("x", "t", 1500), b"event: t\nretry: 1500\ndata: x\n\n"),
        (Event("x", None, 0), b"retry: 0\ndata: x\n\n"),
    ],
)
def test_a_body_has_its_fields_and_ends_with_a_blank_line(event: Event, body: bytes) -> None:
    assert event.encode() == body


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_of_the_three_line_ends_starts_a_new_data_line(end: str) -> None:
    assert Event(f"a{end}b{end}").encode() == b"data: a\ndata: b\ndata: \n\n"


EVENT_STREAM = {"content-type": "text/event-stream"}


def test_line_ends_in_a_row_are_told_apart() -> None:
    assert Event("a\r\r\n\nb").encode() == b"data: a\ndata: \ndata: \ndata: b\n\n"


@pytest.mark.parametrize(
    "kept", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\0", "\ufeff"]
)
def test_nothing_else_ends_a_line(kept: str) -> None:
    assert Event(f"a{kept}b").encode() == f"data: a{kept}b\n\n".encode()


def test_a_frame_begins_with_its_cursor() -> None:
    assert event_frame("ab-1", b"data: x\n\n") == b"id: ab-1\ndata: x\n\n"


def test_a_control_event_is_compact_json_with_cursor_and_retry_when_given() -> None:
    data = {"channels": ["a"], "reason": "epoch"}
    text = b'data: {"channels":["a"],"reason":"epoch"}\n\n'
    assert control_frame("sse.reset", data) == b"event: sse.reset\n" + text
    assert control_frame("sse.reset", data, "ab-1") == b"id: ab-1\nevent: sse.reset\n" + text
    assert control_frame("sse.reset", data, "ab-1", 20) == b"id: ab-1\nevent: sse.reset\nretry: 20\n" + text


def test_a_control_event_cannot_be_broken_by_its_data() -> None:
    hostile = "a\r\n\n\u2028data: x\ud800\0"
    lines = control_frame("sse.open", {"channels": [hostile]}).split(b"\n")
    assert lines[0] == b"event: sse.open"
    assert json.loads(lines[1].removeprefix(b"data: ")) == {"channels": [hostile]}
    assert lines[2:] == [b"", b""]


@pytest.mark.parametrize(
    ("text", "lines"),
    [("hello", b": hello\n"), ("", b": \n"), ("a\r\ndata: b\rid: c", b": a\n: data: b\n: id: c\n")],
)
def test_every_line_of_a_comment_is_a_comment(text: str, lines: bytes) -> None:
    assert comment(text) == lines


def test_retry_and_comments_belong_to_the_next_event_and_are_no_event_of_their_own() -> None:
    assert retry_line(2500) == b"retry: 2500\n"
    text = (retry_line(2500) + comment("x") + control_frame("sse.open", {}, "ab-1")).decode()
    events = list(EventSource(httpx.Response(200, headers=EVENT_STREAM, text=text)).iter_sse())
    assert [(event.event, event.id, event.retry) for event in events] == [("sse.open", "ab-1", 2500)]


@pytest.mark.parametrize(("chance", "retry_ms"), [(0.0, 1000), (0.5, 2000), (0.9999999, 3000)])
def test_a_jittered_time_is_50_to_150_percent(chance: float, retry_ms: int) -> None:
    assert jittered_ms(2.0, Fixed(chance)) == retry_ms


def test_jitter_takes_a_random_generator() -> None:
    times = {jittered_ms(2.0) for _ in range(50)}
    assert len(times) > 1
    assert all(1000 <= retry_ms <= 3000 for retry_ms in times)


def test_the_headers_are_the_protocols() -> None:
    assert dict(HEADERS) == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-store, no-transform, private",
        "X-Accel-Buffering": "no",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Cookie",
    }


@pytest.mark.parametrize("channels", [("sse",), ("a:b", "user:7@x/y.z"), ()])
@pytest.mark.parametrize("secret", [None, "s-_9"])
@pytest.mark.parametrize("retry_ms", [None, 1234])
@pytest.mark.parametrize("resumed", [True, False])
def test_open_frame_equals_what_json_would_write_with_a_mark(
    channels: tuple[str, ...], secret: str | None, retry_ms: int | None, resumed: bool
) -> None:
    data: dict[str, Any] = {"connection": "c-_1", "channels": channels, "resumed": resumed, "heartbeat": 15.0}
    if retry_ms is not None:
        data["retry"] = retry_ms
    if secret is not None:
        data["secret"] = secret
    made = open_frame(
        "e-1", "c-_1", channels, resumed=resumed, heartbeat=15.0, secret=secret, retry_ms=retry_ms
    )
    assert made == control_frame("sse.open", data, "e-1").removesuffix(b"\n\n") + b"\t\n\n"


@pytest.mark.parametrize("user", [None, "7", 'a"b\n'])
def test_an_open_frame_may_name_the_user(user: str | None) -> None:
    made = open_frame("e-1", "c", (), resumed=False, heartbeat=1.0, secret=None, user=user, tells_user=True)
    data = {"connection": "c", "channels": [], "resumed": False, "heartbeat": 1.0, "user": user}
    assert made == control_frame("sse.open", data, "e-1").removesuffix(b"\n\n") + b"\t\n\n"


def test_an_open_frame_may_have_the_time() -> None:
    made = open_frame("e-1", "c", (), resumed=False, heartbeat=1.0, secret=None, time_ms=1_800_000_000_123)
    data = {"connection": "c", "channels": [], "resumed": False, "heartbeat": 1.0, "time": 1_800_000_000_123}
    assert made == control_frame("sse.open", data, "e-1").removesuffix(b"\n\n") + b"\t\n\n"


def test_a_reset_names_the_channels_and_the_reason_and_may_have_a_cursor() -> None:
    text = b'event: sse.reset\ndata: {"channels":["a"],"reason":"history"}\n\n'
    assert reset_frame(["a"], "history", None) == text
    assert reset_frame(["a"], "history", "ab-1") == b"id: ab-1\n" + text
    assert reset_frame(["a"], "history", "ab-1", "plain") == b"id: ab-1\n" + text


@pytest.mark.parametrize("plain", RESETS)
def test_a_library_that_passes_over_a_reset_gets_an_event_that_reloads_the_page(plain: str) -> None:
    frame = reset_frame(["a"], "history", None, plain)
    assert reset_frame(["a"], "history", "ab-1", plain) == b"id: ab-1\n" + frame
    assert frame.index(b"\n\n") == len(frame) - 2
    assert (b"refresh" if plain == "turbo" else b"location.reload()") in frame


def test_an_error_frame_has_the_json_of_an_error() -> None:
    head, data = error_frame(ErrorCode.PERMISSION_DENIED, "no", {"channels": ["a"]}).decode().split("\n", 1)
    error = json.loads(data.removeprefix("data: "))
    assert head == "event: sse.error"
    assert (error["code"], error["message"], error["details"]) == (1201, "no", {"channels": ["a"]})


def test_the_names_in_many_frames_take_at_most_three_megabytes() -> None:
    """The texts and names of 1,024 sets of so many channels would take 13 MB."""
    sets = sets_of_channels(1000)

    def make_frames() -> None:
        for names in sets:
            channels = tuple(names.split(","))
            open_frame("e-1", "c", channels, resumed=False, heartbeat=25, secret=None)

    assert kept_by(make_frames) < 3e6
