"""An app whose operators send a token, with a page that reports its connections."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from flask_sse_push import sse

app = Flask(__name__)
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = "*"
app.register_blueprint(sse, url_prefix="/stream")

PAGE = """<!doctype html><link rel="icon" href="data:,"><title>connecting</title><script type="module">
import { PushClient } from "/stream/client/push-client.js";
import { report } from "/stream/client/report.js";
const push = new PushClient("/stream?channels=a");
report(push, "/stream/report");
window.handled = {};
push.on("message", ({ lastEventId }) => { handled[lastEventId] = Date.now(); });
push.addEventListener("statechange", ({ detail }) => { document.title = detail.state; });
</script>"""


@sse.authorize_admin
def is_operator(user: Any) -> bool:
    return request.headers.get("Authorization") == "Bearer scraper"


@app.get("/")
def page() -> str:
    return PAGE


@app.get("/pid")
def pid() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.post("/publish/<channel>")
def publish(channel: str) -> str:
    return sse.publish("x" * 100, channel=channel)
