"""An app with the blueprint. All channels are public. Its views publish, and show the worker's streams."""

from __future__ import annotations

import gc
import os
from typing import Any

from flask import Flask, Response, request

from flask_sse_push import sse

app = Flask(__name__)
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = os.environ.get("SSE_PUSH_PUBLIC_CHANNELS", "*")
app.secret_key = "test"
app.register_blueprint(sse, url_prefix="/stream")


@app.get("/")
def page() -> str:
    return "hello"


@app.get("/stats")
def stats() -> dict[str, Any]:
    return {"pid": os.getpid(), "frozen": gc.get_freeze_count(), **sse.stats()}


@app.get("/streams")
def streams() -> list[list[str]]:
    """The channels of each open stream."""
    return [sorted(stream["channels"]) for stream in sse.connections()]


@app.post("/publish")
def publish() -> str:
    body = request.get_json()
    return sse.publish(body.pop("data"), **body)


@app.post("/answer")
def answer() -> Response:
    """Streams one event of the type `value` for each value in the body."""
    return sse.stream(("value", value) for value in request.get_json())
