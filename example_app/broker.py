"""Chooses the broker of the demo, and writes the command that reaches it from another terminal."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path

from flask_sse_push import BrokerUnavailable

FOLDER = Path(__file__).parent.parent
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


def command(*words: str) -> str:
    """Returns the line that runs `flask --app example_app <words>` in any terminal of this machine.

    The line changes to the demo's folder, uses the demo's own Python environment, and sets the variables
    that choose the broker. It does not show a URL with a password: the terminal must have the variable.
    """
    python = Path(sys.executable)
    if python.is_relative_to(FOLDER):
        python = python.relative_to(FOLDER)
    flask = [str(python.with_name("flask"))] if _has_flask() else [str(python), "-m", "flask"]
    settings = [_set(key, os.environ[key]) for key in (*KEYS, "SSE_PUSH_PREFIX") if os.environ.get(key)]
    line = " ".join([*settings, shlex.join((*flask, "--app", "example_app", *words))])
    return f"cd {shlex.quote(str(FOLDER))} && {line}"


def _set(key: str, value: str) -> str:
    return f'{key}="${key}"' if "@" in value else f"{key}={shlex.quote(value)}"


def _has_flask() -> bool:
    return Path(sys.executable).with_name("flask").exists()
