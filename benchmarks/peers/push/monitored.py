"""The benchmark's app with metrics and statistics that everybody may read."""

from __future__ import annotations

from flask_sse_push import sse

from .app import app


@sse.authorize_admin
def anybody(user: object) -> bool:
    return True


__all__ = ["app"]
