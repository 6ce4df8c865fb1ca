"""`tests.apps.inspected` with users, who give their name in the query.

`SSE_PUSH_PUBLIC_CHANNELS` names the channels that need no rule. Users may listen to all others too. Everybody
may read the worker's metrics.
"""

from __future__ import annotations

from typing import Any

from flask import Request

from flask_sse_push import sse

from .inspected import app

__all__ = ["app"]


@sse.identify
def who(request: Request) -> str | None:
    return request.args.get("user")


@sse.authorize
def may_listen(user: Any, channel: str) -> bool:
    return user is not None


@sse.authorize_admin
def may_read_metrics(user: Any) -> bool:
    return True
