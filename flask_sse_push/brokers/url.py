"""Brokers by URL: memory://, redis://, rediss://, unix://, valkey://, valkeys://, embedded://, and
redis+sentinel:// and redis+cluster:// (rediss, valkey and valkeys too)."""

from __future__ import annotations

import contextlib
from typing import Any

from ..config import Settings, without_secret
from ..errors import ConfigError
from .base import Bounds, Broker

#: Valkey speaks Redis's protocol; redis-py knows only Redis's own scheme names.
_SAME_AS = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
_SERVERS = ("redis", "rediss", "valkey", "valkeys")
_SENTINEL = {f"{name}+sentinel": f"{_SAME_AS[name]}+sentinel" for name in _SERVERS}
_CLUSTER = {f"{name}+cluster": f"{_SAME_AS[name]}+cluster" for name in _SERVERS}
SCHEMES = ("memory", *_SAME_AS, "embedded", *_SENTINEL, *_CLUSTER)

_CREDENTIALS = "with / # ? @ % in the password as %2F %23 %3F %40 %25"


def connect_broker(settings: Settings) -> Broker:
    """The broker that `settings` name. Opens no connection, but `embedded://` may start a server.

    :raises ConfigError: for an unknown scheme or a URL that cannot be read.
    :raises BrokerUnavailable: when `embedded://` cannot start.
    """
    scheme, _, rest = settings.broker_url.partition("://")
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker(_bounds(settings))
    if scheme == "embedded":
        from . import embedded

        return _on_redis(embedded.ensure(), settings)
    if scheme in _SAME_AS:
        return _on_redis(f"{_SAME_AS[scheme]}://{rest}", settings)
    if scheme in _SENTINEL:
        return _on_sentinel(f"{_SENTINEL[scheme]}://{rest}", settings)
    if scheme in _CLUSTER:
        return _on_cluster(f"{_CLUSTER[scheme]}://{rest}", settings)
    raise _wrong(settings, "a URL that begins with " + ", ".join(f"{name}://" for name in SCHEMES))


def _on_redis(url: str, settings: Settings) -> Broker:
    from .redis import broker

    with contextlib.suppress(ValueError):  # not chained: its text quotes the URL, perhaps the password in it
        return broker.connect(url, **_options(settings))
    raise _wrong(settings, f"scheme://user:password@host:port/database, {_CREDENTIALS}")


def _on_sentinel(url: str, settings: Settings) -> Broker:
    from .redis import sentinel

    with contextlib.suppress(ValueError):
        return sentinel.connect(url, **_options(settings))
    raise _wrong(
        settings, f"scheme://user:password@sentinel1:port,sentinel2/service/database, {_CREDENTIALS}"
    )


def _on_cluster(url: str, settings: Settings) -> Broker:
    from .redis import cluster

    with contextlib.suppress(ValueError):
        return cluster.connect(url, shards=settings.shards, **_options(settings))
    raise _wrong(settings, f"scheme://user:password@node1:port,node2, {_CREDENTIALS}")


def _options(settings: Settings) -> Any:
    return {
        "bounds": _bounds(settings),
        "prefix": settings.prefix,
        "timeout": settings.publish_timeout,
        "wait_replicas": settings.wait_replicas,
    }


def _bounds(settings: Settings) -> Bounds:
    return Bounds(settings.history_size, settings.history_ttl)


def _wrong(settings: Settings, expected: str) -> ConfigError:
    return ConfigError("SSE_PUSH_BROKER_URL", without_secret(settings.broker_url), expected)
