"""The page "Timer": one countdown for all who have signed in; anybody of them starts and stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, abort, jsonify, render_template, request, url_for
from flask_login import current_user, login_required
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, sse

page = Blueprint("timer", __name__, url_prefix="/timer", template_folder="templates", static_folder="static")

KEY = "timer"
#: Where it is told.
CHANNEL = f"run:{KEY}"
#: What the page offers, in seconds.
LENGTHS = (10, 60, 300)


def countdown(seconds: int, by: str) -> Iterator[Any]:
    """Yields the seconds left, each when its time has come: a late one does not delay the others."""
    end = time.monotonic() + seconds
    for left in range(seconds, -1, -1):
        time.sleep(max(0.0, end - left - time.monotonic()))
        yield "left", {"left": left, "of": seconds, "by": by}


@page.get("/")
@login_required  # type: ignore[untyped-decorator]
def show() -> str:
    """The page. It needs the last event alone, but `run.end` may come after it."""
    stream = url_for("sse.stream", channels=CHANNEL, last=2)
    return render_template("timer.html", stream=stream, lengths=LENGTHS)


@page.post("/start")
@login_required  # type: ignore[untyped-decorator]
def start() -> Any:
    """Starts the countdown, unless it runs."""
    seconds = request.form.get("seconds", type=int)
    if seconds not in LENGTHS:
        abort(400, f"seconds must be one of {LENGTHS}")
    if not sse.start(countdown(seconds, current_user.name), key=KEY).started:
        abort(409, "the timer runs already")
    return jsonify()


@page.post("/stop")
@login_required  # type: ignore[untyped-decorator]
def stop() -> Any:
    """Stops it, whoever started it and wherever it runs."""
    sse.stop(KEY)
    return jsonify()


@page.errorhandler(HTTPException)
def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


@page.errorhandler(BrokerUnavailable)
def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
