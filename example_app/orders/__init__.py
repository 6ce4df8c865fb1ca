"""The page "Order": shows the progress of an order in all windows of its user, also after a reload."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page

STEPS = ("Received", "Paid", "Packed", "Shipped", "Delivered")
#: Orders of the past months: number, date, content, price. They stand in for a table of a database.
EARLIER = (
    ("2219", "2 Nov", "Oil for bearings, 1 litre", "£ 14.20"),
    ("2187", "19 Oct", "Punched cards, 2,000 pieces", "£ 46.00"),
    ("2143", "27 Sep", "Brass gears, 12 teeth, 40 pieces", "£ 118.50"),
    ("2090", "8 Sep", "Silk ribbon and ink", "£ 9.80"),
)
#: What the next order contains.
CART = ("Punched cards, 500 pieces", "£ 12.50")
#: Seconds that a step takes, and the number of progress events in a step.
STEP, PARTS = 1.5, 5


def channel(user: Any) -> str:
    """Returns the channel for the order of `user`. Only this user may listen to it."""
    return f"run:{key(user)}"


def key(user: Any) -> str:
    """Returns the key of the run. One key per user allows one order at a time."""
    return f"order:{user.id}"


page = Page("orders", __name__, allows=lambda user, name: name == channel(user))


def deliver() -> Iterator[Any]:
    """Stands in for real work: yields an event for each finished part."""
    total = (len(STEPS) - 1) * PARTS
    for part in range(total + 1):
        yield "progress", {"step": STEPS[part // PARTS], "percent": 100 * part // total}
        time.sleep(STEP / PARTS)


@page.get("/")
def show() -> str:
    """Shows the page."""
    stream = url_for("sse.stream", channels=channel(current_user))
    return render_template("orders.html", stream=stream, steps=STEPS, cart=CART, earlier=EARLIER)


@page.post("/place")
def place() -> Any:
    """Places an order. Answers 409 while another order is under way."""
    if not sse.start(deliver, key=key(current_user)).started:
        abort(409, "one order at a time: this one is still under way")
    return jsonify()


@page.post("/cancel")
def cancel() -> Any:
    """Cancels the order, on whichever worker it runs."""
    sse.stop(key(current_user))
    return jsonify()
