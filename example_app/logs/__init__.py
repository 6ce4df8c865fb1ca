"""The page "Logs", for admins: shows the demo's log file as it grows.

All workers write the file (logfile.py). One process follows it (tail.py, run by ../ticker.py) and publishes
each line. A page gets earlier lines from the channel's history.
"""

from __future__ import annotations

import logging
from typing import Any

from flask import abort, jsonify, render_template, url_for
from flask_login import current_user

from ..page import Page, json_body, text_in
from . import logfile, tail

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Number of lines that a page begins with.
FIRST = 300
MAX_TEXT = 200

page = Page("logs", __name__, admins=True, allows=lambda user, channel: channel == tail.CHANNEL)
logger = logging.getLogger("example_app.visitor")


@page.get("/")
def show() -> str:
    """Shows the page."""
    stream = url_for("sse.stream", channels=tail.CHANNEL, last=FIRST)
    return render_template("logs.html", stream=stream, levels=LEVELS, path=logfile.path(), max_text=MAX_TEXT)


@page.post("/write")
def write() -> Any:
    """Writes a line into the log, as the app itself does."""
    body = json_body()
    level = body.get("level")
    if level not in LEVELS:
        abort(400, f"level must be one of {', '.join(LEVELS)}")
    text = text_in(body, "text", MAX_TEXT, "write something")
    # A line break in the text would let a visitor forge a second log line.
    logger.log(logging.getLevelName(level), "%s says: %s", current_user.name, " ".join(text.split()))
    return jsonify()
