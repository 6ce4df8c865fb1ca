"""Redis or Valkey behind Sentinel: connections that go to whichever server is the primary now.

`redis+sentinel://user:password@host1:26379,host2,host3/service/database?sentinel_password=…`. User, password,
database and options are those of the data servers; options that begin with `sentinel_` are the sentinels'.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis import BlockingConnectionPool, Redis
from redis.connection import parse_url
from redis.exceptions import ConnectionError, RedisError
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from .base import Bounds
from .redis import MAX_CONNECTIONS, SHARE, RedisBroker, without_retries

DEFAULT_PORT = 26379
#: Options of the URL that are meant for the sentinels begin so.
FOR_SENTINELS = "sentinel_"
#: A silent sentinel is passed over after this share of a call's time; one that answers is asked first then.
SENTINEL_SHARE = SHARE / 2

#: Seconds after which a process asks again where the primary is, though its connections are fine: a server
#: that was replaced and does not know it goes on as before.
RECHECK = 5.0

Address = tuple[str, int]


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
    return Service([_address(host) for host in hosts.split(",")], name, options, sentinel_options)


def _address(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host")
    return parts.hostname, parts.port or DEFAULT_PORT


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
        connection_pool=Primary(sentinel, service.name, timeout),
        **{**without_retries(timeout * SHARE), **service.options},
    )
    return RedisBroker(Redis(connection_pool=pool), bounds, prefix, timeout, wait_replicas)


class Primary:
    """Where the primary of a service is, as far as this process knows. Stands where redis-py has a pool."""

    is_master = True
    check_connection = False

    def __init__(self, sentinel: Sentinel, service_name: str, timeout: float) -> None:
        self._sentinel = sentinel
        self._lock = threading.Lock()  # redis-py reorders its list of sentinels while it asks them
        self._timeout = timeout
        self.service_name = service_name
        self.address: Address | None = None
        self._asked_at = 0.0

    def get_master_address(self) -> Address:
        """Asks the sentinels. Raises redis-py's ConnectionError when none knows a primary that is alive."""
        if not self._lock.acquire(timeout=self._timeout):
            raise ConnectionError("the sentinels do not answer")
        self._asked_at = time.monotonic()
        try:
            self.address = self._sentinel.discover_master(self.service_name)
            return self.address
        except MasterNotFoundError as error:  # its own text shows every option of every sentinel
            raise ConnectionError(f"no sentinel knows a live primary of {self.service_name!r}") from error
        finally:
            self._lock.release()

    def recheck(self) -> None:
        """Asks again when the answer is old. Without a new one the old one holds."""
        if time.monotonic() - self._asked_at > RECHECK and not self._lock.locked():
            with contextlib.suppress(RedisError):
                self.get_master_address()


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the primary. One that has led elsewhere since is not used any more."""

    def __init__(self, *, connection_pool: Primary, **options: Any) -> None:
        super().__init__(connection_pool=connection_pool, **options)  # type: ignore[no-untyped-call]
        self._primary = connection_pool

    @property
    def outdated(self) -> bool:
        """Whether the primary was found at another address since this connection was made."""
        return self._primary.address not in (None, (self.host, self.port))

    def connect(self) -> None:
        """Called before each command and for each link: makes sure that there is a connection."""
        self._primary.recheck()
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
        super().connect()  # type: ignore[no-untyped-call]

    def can_read(self, timeout: float = 0) -> bool:
        """Whether something has come. Ends the wait of a link that listens to a former primary, too."""
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("the primary is another server now")
        return bool(super().can_read(timeout))


class PrimarySSLConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """The same over TLS."""
