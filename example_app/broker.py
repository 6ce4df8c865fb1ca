"""Chooses the broker of the demo."""

from __future__ import annotations

import contextlib
import os

from flask_sse_push import BrokerUnavailable

KEYS = ("SSE_PUSH_BROKER_URL", "SSE_REDIS_URL", "REDIS_URL")


def url() -> str:
    """Returns the broker's URL from the environment; without one, `embedded://`.

    The first process that needs the Valkey server of `embedded://` starts it. So a command in another
    terminal reaches the demo's events.
    """
    return next((os.environ[key] for key in KEYS if os.environ.get(key)), "embedded://")


def stop_embedded() -> None:
    """Stops the server of `embedded://`, if the demo uses one. Its events stay on disk."""
    if url().startswith("embedded:"):
        from flask_sse_push.brokers.embedded.broker import parse

        with contextlib.suppress(BrokerUnavailable):
            parse(url(), os.path.dirname(__file__)).stop()
