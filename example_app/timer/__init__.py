"""The page "Timer": one countdown for all users who have signed in. Each of them can start and stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body

KEY = "timer"
#: Channel of the countdown.
CHANNEL = f"run:{KEY}"
#: Lengths that the page offers, in seconds.
LENGTHS = (10, 60, 300)

page = Page("timer", __name__, allows=lambda user, channel: channel == CHANNEL)


def countdown(seconds: int, by: str) -> Iterator[Any]:
    """Yields the number of seconds left, once a second. A late event does not delay the ones after it."""
    end = time.monotonic() + seconds
    for left in range(seconds, -1, -1):
        time.sleep(max(0.0, end - left - time.monotonic()))
        yield "left", {"left": left, "of": seconds, "by": by}


@page.get("/")
def show() -> str:
    """Shows the page. It replays two events, because `run.end` may follow the last `left`."""
    stream = url_for("sse.stream", channels=CHANNEL, last=2)
    return render_template("timer.html", stream=stream, lengths=LENGTHS)


@page.post("/start")
def start() -> Any:
    """Starts the countdown. Answers 409 if it is running already."""
    seconds = json_body().get("seconds")
    if seconds not in LENGTHS:
        abort(400, f"seconds must be one of {LENGTHS}")
    if not sse.start(countdown(seconds, current_user.name), key=KEY).started:
        abort(409, "the timer runs already")
    return jsonify()


@page.post("/stop")
def stop() -> Any:
    """Stops the countdown, whoever started it and on whichever worker it runs."""
    sse.stop(KEY)
    return jsonify()
