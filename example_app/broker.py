"""Where the demo's events live."""

from __future__ import annotations

import os

KEYS = ("SSE_PUSH_BROKER_URL", "SSE_REDIS_URL", "REDIS_URL")


def url() -> str:
    """The broker named in the environment, else the Valkey that `make demo` starts.

    With `embedded://` a command in another terminal joins the server that runs already.
    """
    return next((os.environ[key] for key in KEYS if os.environ.get(key)), "embedded://")
