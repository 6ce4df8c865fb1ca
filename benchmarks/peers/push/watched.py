"""The app of the benchmark with everything that tells of it, open to whoever asks."""

from __future__ import annotations

from flask_sse_push import sse

from .app import app


@sse.authorize_admin
def anybody(user: object) -> bool:
    return True


__all__ = ["app"]
