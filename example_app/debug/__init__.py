"""The page "Debug": what this browser's client counts, the bytes of the stream as they come, who is connected
over all workers, and how the workers are. For admins."""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from flask_sse_push import sse

from ..page import Page, json_body

#: Streams that the table shows.
MOST = 200

page = Page("debug", __name__, admins=True)  # it listens to channels that are open to its users anyway


@page.get("/")
def show() -> str:
    """The page."""
    channels = f"news,ticks,chat,user:{current_user.id}"
    return render_template("debug.html", stream=url_for("sse.stream", channels=channels), most=MOST)


@page.get("/connections")
def connections() -> Any:
    """The streams of all workers, those open for the longest first."""
    found = sorted(sse.connections(), key=lambda stream: stream["since"])
    return jsonify(count=len(found), streams=found[:MOST])


@page.post("/disconnect")
def disconnect() -> Any:
    """Ends a stream, on whatever worker it is. Its client comes back and misses nothing."""
    connection = json_body().get("connection")
    if not isinstance(connection, str) or not connection:
        abort(400, "say which connection")
    sse.disconnect(connection=connection)
    return jsonify()


@page.post("/send")
def send() -> Any:
    """Publishes an event to the user's own channel, to see it come."""
    return jsonify(cursor=sse.send_to_user(current_user.id, {"text": "a test\nin two lines"}, "test"))
