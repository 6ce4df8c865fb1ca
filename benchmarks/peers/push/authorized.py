"""The benchmark's app with users. None of its channels is public."""

from __future__ import annotations

from flask import Request

from flask_sse_push import sse

from .app import app


@sse.identify
def who(request: Request) -> str | None:
    return request.args.get("user")


@sse.load_user
def still(user_id: str) -> str:
    return user_id


@sse.authorize
def allowed(user: object, channel: str) -> bool:
    return user is not None and channel == "bench"


__all__ = ["app"]
