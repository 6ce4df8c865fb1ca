"""The page "Messages": users write to each other privately, and see which messages have been delivered.

Each user has a private channel, `user:<id>`. The app publishes a message to the reader's channel and to the
writer's, whose other windows show it too. The history of the user's channel is the conversation.
"""

from __future__ import annotations

import re
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, now, text_in
from ..signin import USERS

MAX_TEXT = 1000
#: Maximum number of messages in one delivery report.
MAX_RECEIVED = 50
#: Message id. The writer's page makes it, so a message keeps its id when the page sends it again for lack of
#: an answer.
ID = re.compile(r"[0-9a-f]{32}")

#: The page needs no `allows`: every user may listen to `user:<their id>`.
page = Page("messages", __name__)


@page.get("/")
def show() -> str:
    """Shows the page."""
    stream = url_for("sse.stream", channels=f"user:{current_user.id}")
    others = [user for user in USERS.values() if user.id != current_user.id]
    return render_template("messages.html", stream=stream, others=others, max_text=MAX_TEXT)


@page.post("/send")
def send() -> Any:
    """Sends a message to another user."""
    body = json_body()
    to, id = _other(body, "to"), body.get("id")
    text = text_in(body, "text", MAX_TEXT, "write something")
    if not _is_id(id):
        abort(400, "id must be 32 hexadecimal digits")
    message = {
        "id": id,
        "from": current_user.id,
        "to": to,
        "text": text,
        "at": now(),
    }
    sse.send_to_user(to, message, "letter")
    sse.send_to_user(current_user.id, message, "letter")
    return jsonify()


@page.post("/received")
def received() -> Any:
    """Tells a writer that messages have arrived on a page of the reader.

    Every open page of the reader reports this, but the broker stores it once, because the event has the same
    id.
    """
    body = json_body()
    writer, ids = _other(body, "from"), body.get("ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_RECEIVED or not all(map(_is_id, ids)):
        abort(400, f"ids must be a list of at most {MAX_RECEIVED} ids")
    reader = current_user.id
    for id in ids:
        report = {"id": id, "by": reader}
        sse.publish(report, "delivered", channel=(f"user:{writer}", f"user:{reader}"), id=f"{reader}:{id}")
    return jsonify()


def _other(body: dict[str, Any], field: str) -> str:
    user = body.get(field)
    if not isinstance(user, str) or user not in USERS or user == current_user.id:
        abort(400, f"{field} must be another user")
    return user


def _is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None
