"""The parts of `flask sse tail` that need no stream."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from flask import Flask
from rich.console import Console

from flask_sse_push import SSEBlueprint
from flask_sse_push.cli.common import entry_fields
from flask_sse_push.cli.tail.news import (
    PAUSE,
    Disconnected,
    Ended,
    Heartbeat,
    Missed,
    News,
    Opened,
    Received,
    meaning,
)
from flask_sse_push.cli.tail.screen import drawn
from flask_sse_push.cli.tail.summary import RECENT, WINDOW, Summary
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.protocol.event import make_event


def control(type: str, data: Any) -> list[News]:
    """Returns the news in one of the protocol's events."""
    return list(meaning(Received(type, data if isinstance(data, str) else json.dumps(data))))


OPENING = {"connection": "c", "channels": ["a", "b"], "resumed": True, "heartbeat": 15.0}


@pytest.mark.parametrize(
    ("type", "data", "expected"),
    [
        ("sse.open", OPENING, [Opened(True, ("a", "b"), 15.0)]),
        ("sse.open", {}, [Opened(False, (), None)]),
        ("sse.open", {"heartbeat": True, "resumed": 1}, [Opened(False, (), None)]),
        ("sse.heartbeat", {}, [Heartbeat()]),
        ("sse.reset", {"channels": ["a"], "reason": "expired"}, [Missed("a: expired")]),
        ("sse.close", {"reason": "drain", "reconnect": True, "retry": 250}, [Disconnected("", 0.25)]),
        ("sse.close", {"reason": "drain"}, [Disconnected("", PAUSE)]),
        ("sse.close", {"reason": "logout", "reconnect": False}, [Ended("")]),
        ("sse.error", {"code": 1201}, []),
        ("sse.open", "no JSON", []),
        ("sse.open", "[1]", []),
        ("sse.open", {"channels": 7}, [Opened(False, (), None)]),
        ("sse.open", "[" * 100_000, []),
        ("sse.reset", {"channels": {"a": 1}}, [Missed("all channels: no reason given")]),
        ("sse.batch", {"no": "list"}, []),
        ("sse.batch", [{"type": "t", "data": "x", "id": "e-1"}, "odd"], [Received("t", "x", "e-1")]),
        ("sse.batch", [{"type": "t", "data": "[5]\t", "id": "e-1"}], [Received("t", "[5]", "e-1")]),
        ("sse.batch", [{"type": "t", "data": "x\t", "id": "e-1"}], [Received("t", "x\t", "e-1")]),
        ("note", OPENING, []),
    ],
)
def test_the_protocols_events_are_understood_and_malformed_ones_ignored(
    type: str, data: Any, expected: list[News]
) -> None:
    def plain(news: News) -> News:
        return news._replace(why="") if isinstance(news, (Disconnected, Ended)) else news

    assert [plain(news) for news in control(type, data)] == expected


def test_a_cut_counts_once_for_several_attempts_and_a_remark_reports_its_end() -> None:
    summary = Summary(0.0)
    assert summary.note(Opened(False, ("a",), 2.0), 0.5, 0) == "open: a"
    assert summary.note(Disconnected("cut", 1.0), 3.0, 0) == "lost: cut; trying again in 1.0 s"
    summary.note(Disconnected("refused", 2.0), 4.0, 0)
    assert summary.reconnects == 1
    assert summary.silence(1000.0) is None  # nothing is to be expected of a stream that is not there
    remark = summary.note(Opened(True, ("a",), 2.0), 6.5, 0)
    assert remark == "open again after 3.5 s: resumed, nothing missed"


def test_a_stream_is_silent_when_a_heartbeat_is_late() -> None:
    summary = Summary(0.0)
    summary.note(Opened(heartbeat=2.0), 10.0, 0)
    assert summary.silence(14.9) is None
    assert summary.silence(15.5) == 5.5
    summary.note(Heartbeat(), 15.0, 0)
    assert summary.silence(15.5) is None
    assert summary.beat_age(16.0) == 1.0


def test_the_rate_is_that_of_the_last_seconds_and_memory_is_bounded() -> None:
    summary = Summary(0.0)
    for number in range(5000):
        summary.note(Received("message", "ü", f"e-{number}"), number / 100, 0)
    assert summary.rate(49.99) == pytest.approx(100, rel=0.02)
    assert summary.rate(49.99 + 2 * WINDOW) == 0
    assert len(summary.recent) == RECENT
    assert summary.totals(50.0) == (
        "5000 events (10000 bytes) in 50.0 s, 100.0/s; 0 reconnects, 0 resets; last cursor e-4999"
    )


def test_the_table_shows_figures_and_events_without_control_characters() -> None:
    summary = Summary(0.0)
    summary.note(Opened(False, ("news",), 15.0), 1.0, 0)
    summary.note(Received("sse.heartbeat", "{}", "e-1"), 2.0, 0)
    summary.note(Heartbeat(), 2.0, 0)
    for text in ("first", "[red]not markup[/red]", "bell\x07 and \x1b[2J"):
        summary.note(Received("note", text, "e-2", "news"), 3.0, 1e9)
    output = io.StringIO()
    Console(file=output, width=100, color_system=None).print(drawn("http://h/stream", summary, 5.0, 2))
    shown = output.getvalue()
    assert "http://h/stream" in shown
    assert "3, 0.6/s" in shown
    assert "3 s ago" in shown
    assert "first" not in shown  # there was room for two
    assert "[red]not markup[/red]" in shown
    assert "bell\\x07 and \\x1b[2J" in shown


@pytest.mark.parametrize("missing", ["httpx", "httpx_sse"])
def test_without_the_extra_the_message_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "flask_sse_push.cli.tail.url", raising=False)
    app = Flask(__name__)
    app.register_blueprint(SSEBlueprint("sse"), url_prefix="/stream")
    result = app.test_cli_runner().invoke(args=["sse", "tail", "http://127.0.0.1:1/stream"])
    assert result.exit_code == 1
    assert f"needs {missing}: pip install 'flask-sse-push[tail]'" in result.output


def test_an_entry_is_shown_without_the_mark_of_json() -> None:
    for value, shown in (({"a": 1}, '{"a": 1}'), ("42", "42"), ("text\t", "text\t")):
        assert entry_fields(Entry("e", 1, 0, make_event(value).encode()))["data"] == shown
