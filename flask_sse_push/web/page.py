"""The page that goes on as a stream: it carries a cursor from before its request began."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import g, has_request_context

from ..errors import BrokerUnavailable
from ..protocol.channel import checked_channel
from ..protocol.cursor import LOST
from .services import Services

logger = logging.getLogger(__name__)

#: Where `flask.g` keeps when the request began, in monotonic seconds.
BEGAN = "_sse_push_began"


class InTemplates:
    """What templates see under the blueprint's name: `{{ sse.cursor("news") }}`."""

    def __init__(self, cursor: Callable[..., str]) -> None:
        self.cursor = cursor


def note_begin(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Notes when a request began: what its view reads is newer."""
    setattr(g, BEGAN, time.monotonic())


def cursor(services: Services, channels: tuple[str, ...]) -> str:
    """A position before all that the request has read; see `SSEBlueprint.cursor`."""
    for name in channels:
        checked_channel(name)
    began = g.get(BEGAN, None) if has_request_context() else None
    ago = 0.0 if began is None else time.monotonic() - began
    try:
        return str(services.position(ago))
    except BrokerUnavailable as error:
        logger.warning("no cursor for a page, which will fetch its state again: %s", error)
        return LOST
