"""Chooses the broker of the demo."""

from __future__ import annotations

import os

KEYS = ("SSE_PUSH_BROKER_URL", "SSE_REDIS_URL", "REDIS_URL")


def url() -> str:
    """Returns the broker's URL from the environment; without one, `embedded://`.

    `embedded://` starts a Valkey server, or connects to the one that is running already. So a command in
    another terminal reaches the demo's events.
    """
    return next((os.environ[key] for key in KEYS if os.environ.get(key)), "embedded://")
