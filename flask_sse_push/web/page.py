"""Makes cursors for pages. The stream of a page then starts with the events that the page does not show."""

from __future__ import annotations

import logging
import time

from flask import g, has_request_context

from ..errors import BrokerUnavailable
from ..protocol.channel import checked_channel
from ..protocol.cursor import LOST
from .services import Services

logger = logging.getLogger(__name__)

#: Name of the attribute of `flask.g` with the monotonic time at which the request began; `routes` sets it.
STARTED = "_sse_push_began"


def cursor(services: Services, channels: tuple[str, ...]) -> str:
    """Returns a cursor from before the current request began; see `SSEBlueprint.cursor`.

    A stream that starts at this cursor gets every event that is published after the request began.
    """
    for at, name in enumerate(channels):
        checked_channel(name, "channels", at)
    try:
        return str(services.position(began()))
    except BrokerUnavailable as error:
        logger.warning("no cursor for a page; its client will get sse.reset and fetch its state: %s", error)
        return LOST


def began() -> float:
    """Returns the monotonic time at which the current request began; the current time outside of requests."""
    now = time.monotonic()
    return g.get(STARTED, now) if has_request_context() else now
