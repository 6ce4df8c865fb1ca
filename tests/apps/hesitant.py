"""The witness app in a worker that hesitates at every seam: confirming, reading, joining, handing over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from flask_sse_push.brokers.redis.broker import RedisBroker, RedisLink
from flask_sse_push.hub.dispatcher import Dispatcher
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.opening import StreamOpener

from .witness import app

#: Seconds of the longest pause, and how often there is one.
LONGEST, SHARE = 0.05, 0.2


def _pause() -> None:
    if random.random() < SHARE:
        time.sleep(random.random() * LONGEST)


def _hesitate(owner: type, name: str) -> None:
    act: Callable[..., Any] = getattr(owner, name)

    def hesitant(*args: Any, **named: Any) -> Any:
        _pause()
        result = act(*args, **named)
        _pause()
        return result

    setattr(owner, name, hesitant)


for _owner, _name in (
    (RedisLink, "subscribe"),
    (RedisLink, "unsubscribe"),
    (RedisLink, "read"),
    (RedisBroker, "history"),
    (Hub, "open"),
    (StreamOpener, "follow"),
    (Dispatcher, "deliver"),
):
    _hesitate(_owner, _name)

__all__ = ["app"]
