"""How this process calls Redis: time limits, one more try, and errors as BrokerUnavailable."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from ...errors import BrokerUnavailable

#: Connections that one process opens for commands; further callers wait for a free one.
MAX_CONNECTIONS = 20
#: Tries of one call within its time. The second is for a connection that had died unnoticed.
TRIES = 2
#: A try may wait for a free connection, connect, and read. Each of the three may take this share of the time.
SHARE = 1 / 4

#: Runs an idempotent command within the broker's time; raises BrokerUnavailable.
Call = Callable[[Callable[[], Any]], Any]


def without_retries(timeout: float) -> dict[str, Any]:
    """redis-py's options for a connection that waits at most `timeout` seconds and repeats no command."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # redis-py would silently run a script again after a lost reply.
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
        "client_name": "flask-sse-push",
    }


def pool_options(timeout: float) -> dict[str, Any]:
    """redis-py's options for a pool whose connections serve calls of at most `timeout` seconds."""
    share = timeout * SHARE
    return {"max_connections": MAX_CONNECTIONS, "timeout": share, **without_retries(share)}


def url_options(url: str) -> dict[str, Any]:
    """redis-py's options in a redis:// or rediss:// URL, without its host; `ssl` is whether it uses TLS."""
    options: dict[str, Any] = {**parse_url(url)}
    del options["host"]
    options["ssl"] = options.pop("connection_class", None) is not None
    return options


def call_within(timeout: float, command: Callable[[], Any]) -> Any:
    """Runs an idempotent command, and once more when a connection failed and time is left.

    :param timeout: seconds for all tries together.
    :raises BrokerUnavailable: when the last try failed.
    """
    last_start = time.monotonic() + timeout / TRIES
    for tries_left in reversed(range(TRIES)):
        try:
            with translated_errors():
                return command()
        except BrokerUnavailable as error:
            final = isinstance(error.__cause__, AuthenticationError)
            if final or not tries_left or time.monotonic() > last_start:
                raise
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raises redis-py's errors as BrokerUnavailable: no other module needs to know redis-py's."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))
