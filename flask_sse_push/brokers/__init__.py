"""Brokers by URL: memory://, redis://, rediss://, unix://, valkey://, valkeys://, embedded://."""

from __future__ import annotations

import contextlib

from ..config import Settings, without_secret
from ..errors import ConfigError
from .base import Bounds, Broker

#: Valkey speaks Redis's protocol; redis-py knows only Redis's own scheme names.
_SAME_AS = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
SCHEMES = ("memory", *_SAME_AS, "embedded")


def connect(settings: Settings) -> Broker:
    """The broker that `settings` name. Opens no connection, but `embedded://` may start a server.

    :raises ConfigError: for an unknown scheme or a URL that cannot be read.
    :raises BrokerUnavailable: when `embedded://` cannot start.
    """
    url = settings.broker_url
    scheme, _, rest = url.partition("://")
    bounds = Bounds(settings.history_size, settings.history_ttl)
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker(bounds)
    if scheme == "embedded":
        from . import embedded

        url = embedded.ensure()
    elif scheme in _SAME_AS:
        url = f"{_SAME_AS[scheme]}://{rest}"
    else:
        expected = "a URL that begins with " + ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError("SSE_PUSH_BROKER_URL", without_secret(settings.broker_url), expected)
    from . import redis

    with contextlib.suppress(ValueError):  # not chained: its text quotes the URL, perhaps the password in it
        return redis.connect(url, bounds=bounds, prefix=settings.prefix, timeout=settings.publish_timeout)
    expected = (
        "scheme://user:password@host:port/database, with / # ? @ % in the password as %2F %23 %3F %40 %25"
    )
    raise ConfigError("SSE_PUSH_BROKER_URL", without_secret(settings.broker_url), expected)


__all__ = ["SCHEMES", "Broker", "connect"]
