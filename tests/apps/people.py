"""An app with presence. A user gives a name in the query. A worker counts as dead after 2 seconds."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Request, request

from flask_sse_push import sse
from flask_sse_push.presence import worker_counts

worker_counts.LEASE, worker_counts.RENEW = 2.0, 0.5

app = Flask(__name__)
app.secret_key = "test"
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = "*"
app.config["SSE_PUSH_PRESENCE_CHANNELS"] = "room:*"
app.register_blueprint(sse, url_prefix="/stream")


@sse.identify
def who(request: Request) -> str | None:
    return request.args.get("user")


@app.get("/people")
def people() -> dict[str, Any]:
    return {"pid": os.getpid(), "presence": sse.presence("room:1"), "connections": sse.connections()}


@sse.authorize_admin
def is_operator(user: str | None) -> bool:
    return user == "operator"


@app.post("/publish/<text>")
def publish(text: str) -> str:
    return sse.publish(text, channel="room:1")


@app.post("/leave")
def leave() -> str:
    sse.disconnect(user_id=request.args["user"], reconnect=False)
    return ""
