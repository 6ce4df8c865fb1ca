"""The page "Debug", for admins: the statistics of this browser's client, the raw bytes of its stream, the
streams of all workers, and the health of the workers."""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body

#: Maximum number of streams in the table.
MOST = 200

page = Page("debug", __name__, admins=True)  # needs no `allows`: other rules open its channels


@page.get("/")
def show() -> str:
    """Shows the page."""
    channels = f"news,ticks,chat,user:{current_user.id}"
    return render_template("debug.html", stream=url_for("sse.stream", channels=channels), most=MOST)


@page.get("/connections")
def connections() -> Any:
    """Returns the streams of all workers, the longest open first."""
    found = sorted(sse.connections(), key=lambda stream: stream["since"])
    return jsonify(count=len(found), streams=found[:MOST])


@page.post("/disconnect")
def disconnect() -> Any:
    """Closes a stream on whichever worker has it. Its client reconnects and misses no event."""
    connection = json_body().get("connection")
    if not isinstance(connection, str) or not connection:
        abort(400, "say which connection")
    sse.disconnect(connection=connection)
    return jsonify()


@page.post("/send")
def send() -> Any:
    """Publishes a test event to the user's own channel."""
    return jsonify(cursor=sse.send_to_user(current_user.id, {"text": "a test\nin two lines"}, "test"))
