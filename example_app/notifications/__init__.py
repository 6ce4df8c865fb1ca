"""The page "Notifications": toasts for one user in all their windows, and a list of unread notifications.

The app stores no list. Sending, reading and dismissing a notification are events on the user's channel, so
all windows show the same. A page builds the list from the channel, from the earliest event on.
"""

from __future__ import annotations

import time
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, text_in
from ..signin import USERS

LEVELS = ("info", "warning", "error", "critical")
#: What a user can do with notifications. Each is an event type, `notice.<mark>`.
MARKS = ("read", "dismissed")
MAX_TEXT, MAX_MARKED = 300, 200

page = Page("notifications", __name__)  # needs no `allows`: every user may listen to `user:<their id>`


@page.get("/")
def show() -> str:
    """Shows the page. A notification newer than `now_ms` pops up; older ones are only in the list."""
    stream = url_for("sse.stream", channels=f"user:{current_user.id}")
    return render_template(
        "notifications.html",
        stream=stream,
        now_ms=round(time.time() * 1000),
        users=USERS,
        levels=LEVELS,
        max_text=MAX_TEXT,
    )


@page.post("/send")
def send() -> Any:
    """Sends a notification to one user."""
    body = json_body()
    to, level = body.get("to"), body.get("level")
    if to not in USERS or level not in LEVELS:
        abort(400, "choose whom to tell, and a level")
    text = text_in(body, "text", MAX_TEXT, "write something")
    content = {"text": text, "from": current_user.name}
    return jsonify(cursor=sse.notify("notice", content, level=level, channel=f"user:{to}"))


@page.post("/mark")
def mark() -> Any:
    """Tells all windows of this user that the user has read or dismissed notifications."""
    body = json_body()
    ids, becomes = body.get("ids"), body.get("as")
    if becomes not in MARKS or not isinstance(ids, list) or not 0 < len(ids) <= MAX_MARKED:
        abort(400, f"say what to mark, at most {MAX_MARKED}, and as what")
    return jsonify(cursor=sse.send_to_user(current_user.id, {"ids": ids}, f"notice.{becomes}"))
