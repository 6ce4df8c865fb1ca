"""`tests.apps.inspected`, with random pauses around subscribing, reading, opening and delivering."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from flask_sse_push.brokers.redis.broker import RedisBroker
from flask_sse_push.brokers.redis.link import RedisLink
from flask_sse_push.hub.dispatcher import Dispatcher
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.opening import StreamOpener

from .inspected import app

#: Seconds of the longest pause, and the share of calls that pause.
LONGEST, SHARE = 0.05, 0.2


def _pause() -> None:
    if random.random() < SHARE:
        time.sleep(random.random() * LONGEST)


def _add_pauses(owner: type, name: str) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    def with_pauses(*args: Any, **named: Any) -> Any:
        _pause()
        result = method(*args, **named)
        _pause()
        return result

    setattr(owner, name, with_pauses)


for _owner, _name in (
    (RedisLink, "subscribe"),
    (RedisLink, "unsubscribe"),
    (RedisLink, "read"),
    (RedisBroker, "history"),
    (Hub, "open"),
    (StreamOpener, "follow"),
    (Dispatcher, "deliver"),
):
    _add_pauses(_owner, _name)

__all__ = ["app"]
