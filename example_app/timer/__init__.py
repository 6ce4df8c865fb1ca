"""The page "Timer": one countdown for all who have signed in; anybody of them starts and stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body

KEY = "timer"
#: Where it is told.
CHANNEL = f"run:{KEY}"
#: What the page offers, in seconds.
LENGTHS = (10, 60, 300)

page = Page("timer", __name__, allows=lambda user, channel: channel == CHANNEL)


def countdown(seconds: int, by: str) -> Iterator[Any]:
    """Yields the seconds left, each when its time has come: a late one does not delay the others."""
    end = time.monotonic() + seconds
    for left in range(seconds, -1, -1):
        time.sleep(max(0.0, end - left - time.monotonic()))
        yield "left", {"left": left, "of": seconds, "by": by}


@page.get("/")
def show() -> str:
    """The page. It needs the last event alone, but `run.end` may come after it."""
    stream = url_for("sse.stream", channels=CHANNEL, last=2)
    return render_template("timer.html", stream=stream, lengths=LENGTHS)


@page.post("/start")
def start() -> Any:
    """Starts the countdown, unless it runs."""
    seconds = json_body().get("seconds")
    if seconds not in LENGTHS:
        abort(400, f"seconds must be one of {LENGTHS}")
    if not sse.start(countdown(seconds, current_user.name), key=KEY).started:
        abort(409, "the timer runs already")
    return jsonify()


@page.post("/stop")
def stop() -> Any:
    """Stops it, whoever started it and wherever it runs."""
    sse.stop(KEY)
    return jsonify()
