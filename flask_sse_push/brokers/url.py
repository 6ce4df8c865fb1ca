"""Makes a broker from its URL.

Schemes: memory, redis, rediss, unix, valkey, valkeys, embedded. `+sentinel` or `+cluster` may follow redis,
rediss, valkey and valkeys.
"""

from __future__ import annotations

import contextlib

from ..config import Settings, without_secret
from ..errors import ConfigError
from ..protocol.printable import printable
from .base import Broker

#: The scheme that redis-py knows, for each scheme of one server. Valkey speaks Redis's protocol, but redis-py
#: knows Redis's schemes only.
_SAME_AS = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
_SERVERS = ("redis", "rediss", "valkey", "valkeys")
_SENTINEL = {f"{name}+sentinel": f"{_SAME_AS[name]}+sentinel" for name in _SERVERS}
_CLUSTER = {f"{name}+cluster": f"{_SAME_AS[name]}+cluster" for name in _SERVERS}
SCHEMES = ("memory", *_SAME_AS, "embedded", *_SENTINEL, *_CLUSTER)

_CREDENTIALS = "with / # ? @ % in the password as %2F %23 %3F %40 %25"


def connect_broker(settings: Settings, root: str | None = None) -> Broker:
    """Returns the broker at `settings.broker_url`. Opens no connection, and starts no server yet.

    :param root: the app's `root_path`, by which `embedded://` finds the project; None if there is no app.
    :raises ConfigError: if the scheme is unknown, the URL is not valid, or an option must not be set.
    """
    scheme, _, rest = settings.broker_url.partition("://")
    if scheme == "memory":
        from .lone import memory_broker

        return memory_broker(settings.policies, root)
    if scheme not in SCHEMES:
        raise _wrong(settings, "a URL that begins with " + ", ".join(f"{name}://" for name in SCHEMES))
    from .redis.client import BrokerSettings

    shown = f"{settings.broker_key}, which is {printable(without_secret(settings.broker_url))}"
    options = BrokerSettings(
        settings.policies, settings.prefix, settings.publish_timeout, shown, settings.wait_replicas
    )
    wrong = scheme != "embedded" and _wrong_option(f"{scheme}://{rest}", scheme)
    if wrong:
        raise _wrong(settings, wrong)
    # The text of a ValueError may quote the password. So a ConfigError must not be raised from it.
    with contextlib.suppress(ValueError):
        if scheme == "embedded":
            from .embedded import broker as embedded

            expected = embedded.EXPECTED
            return embedded.connect(settings.broker_url, options, root)
        if scheme in _SENTINEL:
            from .redis import sentinel

            expected = "scheme://user:password@sentinel1:port,sentinel2/service/database"
            return sentinel.connect(f"{_SENTINEL[scheme]}://{rest}", options)
        if scheme in _CLUSTER:
            from .redis import cluster

            expected = "scheme://user:password@node1:port,node2"
            return cluster.connect(f"{_CLUSTER[scheme]}://{rest}", options, settings.shards)
        from .redis import broker

        expected = "scheme://user:password@host:port/database"
        return broker.connect(f"{_SAME_AS[scheme]}://{rest}", options)
    raise _wrong(settings, f"{expected}, {_CREDENTIALS}")


def serves_one_process(settings: Settings) -> bool:
    """Whether the broker of these settings reaches the streams of its own process only."""
    return settings.broker_url.startswith("memory:")


def _wrong_option(url: str, scheme: str) -> str:
    """Returns what is wrong with the options of a URL, as the end of "must be …"; "" if nothing is wrong."""
    from .redis.options import wrong_option

    with contextlib.suppress(ValueError):  # the URL itself is not valid; the caller says so
        return wrong_option(url, sentinel=scheme in _SENTINEL)
    return ""


def _wrong(settings: Settings, expected: str) -> ConfigError:
    return ConfigError(settings.broker_key, without_secret(settings.broker_url), expected)
