"""An app on the in-memory broker, with a clock that the test winds, and a look at what was published."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from flask import Flask

from ..brokers.base import NO_INBOX
from ..config import Settings
from ..protocol.channel import checked_channel
from ..web.routes import EXTENSION
from ..web.stream import StreamEndpoint
from .events import Event, Parser

#: A clock that stands still makes every client look slow the moment it is wound.
PATIENT = {"write_timeout": float("inf")}


class FakeClock:
    """Monotonic seconds that pass by `advance` alone. Heartbeats and batches go by it, and how long a quiet
    channel stays subscribed; deadlines of tests and brokers go by real time."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Lets time pass. What falls due by it comes within a quarter of a real second."""
        if seconds < 0:
            raise ValueError(f"seconds is {seconds}: time does not go back")
        self._now += seconds


def endpoints(app: Flask) -> list[StreamEndpoint]:
    """What the blueprints registered on `app` serve it by.

    :raises RuntimeError: when there is none.
    """
    found = list(app.extensions.get(EXTENSION, {}).values())
    if not found:
        raise RuntimeError(f"no SSEBlueprint is registered on {app.name!r}")
    return found


@contextlib.contextmanager
def in_memory(app: Flask, *, clock: Callable[[], float] = time.monotonic, **settings: Any) -> Iterator[Flask]:
    """Runs `app` on an in-memory broker of its own while the block lasts, whatever its configuration says.

    Each block begins without any history, and closes at its end what it has opened.

    :param clock: what heartbeats go by.
    :param settings: settings for the time being by the names of their fields, e.g. `heartbeat=1.0`.
    :raises ConfigError: for a wrong setting.
    :raises RuntimeError: when no blueprint is registered.
    """
    wanted = Settings.load({Settings.key(name): value for name, value in settings.items()}, {})
    changed = PATIENT | {name: getattr(wanted, name) for name in settings} | {"broker_url": "memory://"}
    before = [(endpoint, endpoint.services.settings) for endpoint in endpoints(app)]
    for endpoint, own in before:
        endpoint.restart(replace(own, **changed), clock)
    try:
        yield app
    finally:
        for endpoint, own in before:
            endpoint.restart(own)


def published(app: Flask, channel: str = "sse") -> list[Event]:
    """The events that `channel` keeps, oldest first: what the app has published, with nobody listening.

    At most `SSE_PUSH_HISTORY_SIZE`; events with `ttl=0` are among them. Blocks for one call to the broker.

    :raises InvalidEvent: for a name that is no channel's.
    """
    name = checked_channel(channel)
    found: list[Event] = []
    for endpoint in endpoints(app):
        for entry in endpoint.services.publishing.broker.history({name: 0}, NO_INBOX).channels[name].entries:
            found += Parser().feed(entry.frame)
    return found
