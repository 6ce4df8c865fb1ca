"""The page "Activity": events of several channels in one list, as far back as the broker keeps them."""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body, now, text_in

#: The kinds of activity and their names on the page. Each kind has its own channel.
KINDS = {"comment": "Comments", "deploy": "Deploys", "alert": "Alerts"}
#: Number of events that the page begins with, and that each press of "Older" adds.
FEW = 20
MAX_TEXT = 200


def channel(kind: str) -> str:
    """Returns the channel for events of this kind."""
    return f"activity:{kind}"


page = Page("activity", __name__, allows=lambda user, name: name in map(channel, KINDS))


@page.get("/")
def show() -> str:
    """Shows the page. Its stream begins with the newest events of all kinds."""
    stream = url_for("sse.stream", channels=",".join(map(channel, KINDS)), last=FEW)
    return render_template("activity.html", stream=stream, kinds=KINDS, few=FEW, max_text=MAX_TEXT)


@page.post("/do")
def do() -> Any:
    """Publishes what the user did to the channel of its kind."""
    body = json_body()
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        abort(400, f"kind must be one of {', '.join(KINDS)}")
    text = text_in(body, "text", MAX_TEXT, "say what happened")
    event = {
        "kind": kind,
        "by": current_user.name,
        "text": text,
        "at": now(),
    }
    return jsonify(cursor=sse.publish(event, "activity", channel=channel(kind)))
