"""The page "Order": how far an order is, in all windows of who placed it, and over a reload."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page

STEPS = ("Received", "Paid", "Packed", "Shipped", "Delivered")
#: Seconds a step takes, and in how many parts it is told.
STEP, PARTS = 1.5, 5


def channel(user: Any) -> str:
    """Where the order of `user` is told, to them alone."""
    return f"run:{key(user)}"


def key(user: Any) -> str:
    """Names the run: one order at a time for each user."""
    return f"order:{user.id}"


page = Page("orders", __name__, allows=lambda user, name: name == channel(user))


def deliver() -> Iterator[Any]:
    """Stands for the work: yields an event for each piece of it that is done."""
    total = (len(STEPS) - 1) * PARTS
    for part in range(total + 1):
        yield "progress", {"step": STEPS[part // PARTS], "percent": 100 * part // total}
        time.sleep(STEP / PARTS)


@page.get("/")
def show() -> str:
    """The page."""
    stream = url_for("sse.stream", channels=channel(current_user))
    return render_template("orders.html", stream=stream, steps=STEPS)


@page.post("/place")
def place() -> Any:
    """Places an order, unless one is under way."""
    if not sse.start(deliver, key=key(current_user)).started:
        abort(409, "one order at a time: this one is still under way")
    return jsonify()


@page.post("/cancel")
def cancel() -> Any:
    """Ends the order, whichever worker is at it."""
    sse.stop(key(current_user))
    return jsonify()
