"""Cursors for pages: the stream then begins where the page ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flask import g, has_request_context

from ..errors import BrokerUnavailable
from ..protocol.channel import checked_channel
from ..protocol.cursor import LOST
from .services import Services

logger = logging.getLogger(__name__)

#: The name in `flask.g` under which lies the monotonic time when the request began; set by `routes`.
STARTED = "_sse_push_began"


class InTemplates:
    """The object in templates that has the blueprint's name: `{{ sse.cursor("news") }}`."""

    def __init__(self, cursor: Callable[..., str]) -> None:
        self.cursor = cursor


def cursor(services: Services, channels: tuple[str, ...]) -> str:
    """Returns a cursor that lies before everything the view has read; see `SSEBlueprint.cursor`."""
    for name in channels:
        checked_channel(name)
    started = g.get(STARTED, None) if has_request_context() else None
    ago = 0.0 if started is None else time.monotonic() - started
    try:
        return str(services.position(ago))
    except BrokerUnavailable as error:
        logger.warning("no cursor for a page, whose client will get sse.reset and fetch its state: %s", error)
        return LOST
