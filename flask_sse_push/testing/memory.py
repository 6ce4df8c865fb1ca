"""Runs an app on the in-memory broker, with a clock that the test controls, and reads what it published."""

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
from ..web.endpoints import Endpoints
from ..web.routes import EXTENSION
from ..web.stream import StreamEndpoint
from .events import Event, Parser

#: When a test moves its clock, every client seems to have read nothing for a long time. So clients that
#: read slowly are not closed in tests.
NEVER_SLOW = {"write_timeout": float("inf")}


class FakeClock:
    """A clock that moves only by `advance`.

    Heartbeats, batches and the time that an unused channel stays subscribed use this clock. The deadlines of
    tests and of brokers use real time.
    """

    def __init__(self) -> None:
        self._now = time.monotonic()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock by `seconds`. If heartbeats are then due, they follow within 0.25 real seconds."""
        if seconds < 0:
            raise ValueError(f"seconds is {seconds}: time does not go back")
        self._now += seconds


def endpoints(app: Flask) -> list[StreamEndpoint]:
    """Returns the endpoints of all blueprints of this package that are registered on `app`.

    :raises RuntimeError: if no blueprint is registered.
    """
    found: Endpoints | None = app.extensions.get(EXTENSION)
    if found is None:
        raise RuntimeError(f"no SSEBlueprint is registered on {app.name!r}")
    return found.all()


@contextlib.contextmanager
def in_memory(app: Flask, *, clock: Callable[[], float] = time.monotonic, **settings: Any) -> Iterator[Flask]:
    """Runs `app` on an in-memory broker during a `with` block, whatever the app's configuration says.

    At the beginning of the block there are no events. At its end all streams are closed.

    :param clock: returns monotonic seconds; decides when heartbeats are sent.
    :param settings: settings for this block, in lower case: `heartbeat=1.0` sets `SSE_PUSH_HEARTBEAT`.
    :raises ConfigError: if a setting is invalid.
    :raises RuntimeError: if no blueprint is registered.
    """
    wanted = Settings.load({Settings.key(name): value for name, value in settings.items()}, {})
    names = {*settings, "channels"} if "channels_file" in settings else {*settings}
    changed = NEVER_SLOW | {name: getattr(wanted, name) for name in names} | {"broker_url": "memory://"}
    used = endpoints(app)
    own = app.extensions[EXTENSION].read_settings()
    for endpoint in used:
        endpoint.restart(replace(own, **changed), clock)
    try:
        yield app
    finally:
        for endpoint in used:
            endpoint.restart(own)


def published(app: Flask, channel: str = "sse") -> list[Event]:
    """Returns the events that the app has published to `channel`, oldest first, even if nobody listened.

    The list has the events that the channel's policy keeps, by default the newest `SSE_PUSH_HISTORY_SIZE`,
    events with `ttl=0` included. Blocks for one call to the broker.

    :raises InvalidEvent: if `channel` is not a valid name of a channel.
    """
    name = checked_channel(channel)
    found: list[Event] = []
    for endpoint in endpoints(app):
        for entry in endpoint.services.publishing.broker.history({name: 0}, NO_INBOX).channels[name].entries:
            found += Parser().feed(entry.frame)
    return found
