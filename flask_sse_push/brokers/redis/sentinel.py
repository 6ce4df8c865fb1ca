"""Redis or Valkey behind Sentinel: connections that go to whichever server is the primary now.

`redis+sentinel://user:password@host1:26379,host2,host3/service/database?sentinel_password=…`. User, password,
database and options are those of the data servers; options that begin with `sentinel_` are the sentinels'.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis import BlockingConnectionPool, Redis
from redis.connection import parse_url
from redis.exceptions import ConnectionError
from redis.sentinel import MasterNotFoundError, Sentinel

from ..base import Bounds
from .broker import MAX_CONNECTIONS, SHARE, RedisBroker, without_retries
from .primary import Address, Primary, PrimaryConnection, PrimarySSLConnection, parse_hosts

DEFAULT_PORT = 26379
#: Options of the URL that are meant for the sentinels begin so.
FOR_SENTINELS = "sentinel_"
#: A silent sentinel is passed over after this share of a call's time; one that answers is asked first then.
SENTINEL_SHARE = SHARE / 2


class Service(NamedTuple):
    """What a URL says: where the sentinels are, the service they watch, and redis-py's options for both."""

    sentinels: list[Address]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse(url: str) -> Service:
    """What a redis+sentinel:// or rediss+sentinel:// URL says; with rediss all connections use TLS.

    :raises ValueError: when it is not one.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    user, at, hosts = parts.netloc.rpartition("@")
    name, _, database = unquote(parts.path).strip("/").partition("/")
    if not hosts or not name:
        raise ValueError("hosts and the name of the service are needed")
    query = parse_qsl(parts.query)
    own = [(key, value) for key, value in query if not key.startswith(FOR_SENTINELS)]
    theirs = [(key[len(FOR_SENTINELS) :], value) for key, value in query if key.startswith(FOR_SENTINELS)]
    if database:
        own.append(("db", str(int(database))))
    options = parse_url(f"{scheme}://{user}{at}server?{urlencode(own)}")
    sentinel_options = parse_url(f"{scheme}://sentinel?{urlencode(theirs)}")
    for each in (options, sentinel_options):
        del each["host"]
        each["ssl"] = each.pop("connection_class", None) is not None
    return Service(parse_hosts(hosts, DEFAULT_PORT), name, options, sentinel_options)


def connect(url: str, *, bounds: Bounds, prefix: str, timeout: float, wait_replicas: int = 0) -> RedisBroker:
    """The broker at a redis+sentinel:// or rediss+sentinel:// URL. Opens nothing yet.

    :param wait_replicas: how many replicas must have an event before it counts as published.
    :raises ValueError: for a URL that cannot be read.
    """
    service = parse(url)
    limited = without_retries(timeout * SENTINEL_SHARE)
    sentinel = Sentinel(service.sentinels, sentinel_kwargs={**limited, **service.sentinel_options})
    tls = service.options.pop("ssl")
    pool = BlockingConnectionPool(
        max_connections=MAX_CONNECTIONS,
        timeout=timeout * SHARE,
        connection_class=PrimarySSLConnection if tls else PrimaryConnection,
        connection_pool=Watched(sentinel, service.name, timeout),
        **{**without_retries(timeout * SHARE), **service.options},
    )
    return RedisBroker(Redis(connection_pool=pool), bounds, prefix, timeout, wait_replicas)


class Watched(Primary):
    """The primary of a service, as its sentinels know it."""

    def __init__(self, sentinel: Sentinel, service_name: str, timeout: float) -> None:
        super().__init__(timeout)
        self._sentinel = sentinel
        self.service_name = service_name

    def find(self) -> Address:
        try:
            host, port = self._sentinel.discover_master(self.service_name)
        except MasterNotFoundError as error:  # its own text shows every option of every sentinel
            raise ConnectionError(f"no sentinel knows a live primary of {self.service_name!r}") from error
        return host, port
