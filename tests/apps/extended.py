"""`tests.apps.plain` with Flask-Compress for streams, Flask-DebugToolbar, and a note of what happened."""

from __future__ import annotations

import logging
from typing import Any

from flask import Response, request
from flask_compress import Compress
from flask_debugtoolbar import DebugToolbarExtension

from flask_sse_push import stream_closed

from .plain import app

logging.basicConfig(format="%(message)s")  # the toolbar's own handler writes nothing to stderr
app.config["COMPRESS_MIMETYPES"] = ["text/event-stream", "text/html"]
app.config["DEBUG_TB_ENABLED"] = True
Compress(app)
DebugToolbarExtension(app)

happened: list[str] = []


@app.get("/happened")
def show() -> list[str]:
    return happened


@app.after_request
def watch(response: Response) -> Response:
    if request.path == "/stream":
        response.call_on_close(lambda: happened.append("call_on_close"))
    return response


@stream_closed.connect_via(app)
def note_closed(sender: Any, **facts: Any) -> None:
    happened.append("stream_closed")


__all__ = ["app"]
