"""An app with users. Only users may listen to the channel `members`."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request, session

from flask_sse_push import sse

app = Flask(__name__)
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ("news", "kept", "single", "apart", "edits", "lobby")
app.secret_key = "test"
app.register_blueprint(sse, url_prefix="/stream")


@sse.identify
def who(request: Request) -> str | None:
    return session.get("user")


@sse.authorize
def may_listen(user: Any, channel: str) -> bool:
    return channel == "members" and user is not None


@app.get("/")
def page() -> str:
    return "hello"


@app.get("/login/<user>")
def login(user: str) -> str:
    session["user"] = user
    return user


@app.get("/streams")
def streams() -> list[list[str]]:
    """The channels of each open stream."""
    return [sorted(stream["channels"]) for stream in sse.connections()]
