"""The broker on Redis or Valkey behind Sentinel: connections go to the server that is the primary now.

The URL is `redis+sentinel://user:password@host1:26379,host2,host3/service/database?sentinel_password=…`. The
hosts are the sentinels. User, password, database and options are for the data servers, but options that begin
with `sentinel_` are for the sentinels.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.exceptions import ConnectionError
from redis.sentinel import MasterNotFoundError, Sentinel

from .. import forks
from .broker import RedisBroker
from .client import SHARE, BrokerSettings, close_copies, url_options, without_retries
from .options import FOR_SENTINELS
from .primary import Address, Primary, clients_of, parse_hosts

DEFAULT_PORT = 26379
#: How long one sentinel may take to reply, as a share of a call's time. Then the next sentinel is asked.
SENTINEL_SHARE = SHARE / 2


class Service(NamedTuple):
    """The content of a URL: the sentinels, the name of the service that they watch, and redis-py's options.

    `options` are for the data servers, `sentinel_options` for the sentinels.
    """

    sentinels: list[Address]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse(url: str) -> Service:
    """Reads a redis+sentinel:// or rediss+sentinel:// URL. With rediss, all connections use TLS.

    :raises ValueError: if the URL is not valid.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    user, at, hosts = parts.netloc.rpartition("@")
    name, _, database = unquote(parts.path).strip("/").partition("/")
    if not hosts or not name:
        raise ValueError("hosts and the name of the service are needed")
    query = parse_qsl(parts.query)
    for_servers = [(key, value) for key, value in query if not key.startswith(FOR_SENTINELS)]
    for_sentinels = [
        (key[len(FOR_SENTINELS) :], value) for key, value in query if key.startswith(FOR_SENTINELS)
    ]
    if database:
        if not re.fullmatch("[0-9]{1,6}", database):
            raise ValueError("the database must be a whole number")
        for_servers.append(("db", database))
    options = url_options(f"{scheme}://{user}{at}server?{urlencode(for_servers)}")
    sentinel_options = url_options(f"{scheme}://sentinel?{urlencode(for_sentinels)}")
    return Service(parse_hosts(hosts, DEFAULT_PORT), name, options, sentinel_options)


def connect(url: str, settings: BrokerSettings) -> RedisBroker:
    """Returns the broker at a redis+sentinel:// or rediss+sentinel:// URL. Opens no connection yet.

    :raises ValueError: if the URL is not valid.
    """
    service, timeout = parse(url), settings.timeout
    options = {**without_retries(timeout * SENTINEL_SHARE), **service.sentinel_options}

    def primary() -> ServicePrimary:
        return ServicePrimary(Sentinel(service.sentinels, sentinel_kwargs=options), service.name, timeout)

    clients = clients_of(primary, service.options, settings)
    return RedisBroker(clients, *settings.of_broker)


class ServicePrimary(Primary):
    """Finds the primary of a service by asking the sentinels."""

    def __init__(self, sentinel: Sentinel, service_name: str, timeout: float) -> None:
        super().__init__(timeout)
        self._sentinel = sentinel
        self.service_name = service_name
        forks.watch(self)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        for client in self._sentinel.sentinels:
            close_copies(client.connection_pool)

    def find(self) -> Address:
        try:
            host, port = self._sentinel.discover_master(self.service_name)
        except MasterNotFoundError as error:  # the text of `error` shows the sentinels' passwords
            raise ConnectionError(f"no sentinel knows a live primary of {self.service_name!r}") from error
        return host, port
