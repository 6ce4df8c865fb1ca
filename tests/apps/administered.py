"""An app with an admin page. The header `X-User` names the user of a request; `root` is the admin."""

from __future__ import annotations

from flask import Flask, Request

from flask_sse_push import sse

app = Flask(__name__)
app.secret_key = "test"
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = ("sse", "news")
app.register_blueprint(sse, url_prefix="/stream")


@sse.identify
def who(request: Request) -> str | None:
    return request.headers.get("X-User")


@sse.load_user
def load(id: str) -> str:
    return id


@sse.authorize_admin
def is_admin(user: str | None) -> bool:
    return user == "root"
