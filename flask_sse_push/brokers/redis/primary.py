"""Connections to a server whose address can change: a primary (Sentinel), or a slot's owner (Cluster)."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from redis import BlockingConnectionPool
from redis.exceptions import ConnectionError, MovedError, RedisError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from .client import BrokerSettings, Clients, pool_options

#: How long a process relies on one lookup of the primary, in seconds. Then the process looks it up again,
#: even if its connections work: a former primary may still answer, without knowing that it was replaced.
RECHECK = 5.0

Address = tuple[str, int]


def parse_hosts(text: str, port: int) -> list[Address]:
    """Reads addresses from text such as `host:port,host,[::1]:port`.

    :param port: the port of hosts for which `text` gives no port.
    :raises ValueError: if a part of the text is not a host.
    """
    parts = [urlsplit(f"//{host}") for host in text.split(",")]
    if not all(part.hostname for part in parts):
        raise ValueError(f"{text!r} must be hosts with commas between them")
    return [(part.hostname or "", part.port or port) for part in parts]


class Primary(ABC):
    """Looks up the primary and remembers its address.

    redis-py's Sentinel connections expect a pool that knows the primary; this class acts as the pool.
    """

    is_master = True
    check_connection = False
    service_name = "primary"

    def __init__(self, timeout: float) -> None:
        self._lock = threading.Lock()
        self._timeout = timeout
        self.address: Address | None = None
        self._found_at = 0.0

    @abstractmethod
    def find(self) -> Address:
        """Returns the address of the primary. Called by one thread at a time.

        :raises redis.exceptions.ConnectionError: if nobody knows the primary.
        """

    def get_master_address(self) -> Address:
        """Looks up the primary and returns its address. redis-py calls this for each new connection."""
        if not self._lock.acquire(timeout=self._timeout):
            raise ConnectionError("the lookup of the primary by another thread did not end in time")
        self._found_at = time.monotonic()
        try:
            self.address = self.find()
            return self.address
        finally:
            self._lock.release()

    def recheck(self) -> None:
        """Looks up the primary if the last lookup was more than RECHECK seconds ago.

        Keeps the old address if the lookup fails.
        """
        if time.monotonic() - self._found_at > RECHECK and not self._lock.locked():
            with contextlib.suppress(RedisError):
                self.get_master_address()


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the primary. The connection closes when the primary has moved to another address."""

    def __init__(self, *, connection_pool: Primary, **options: Any) -> None:
        super().__init__(connection_pool=connection_pool, **options)  # type: ignore[no-untyped-call]
        self._primary = connection_pool

    @property
    def outdated(self) -> bool:
        """Whether the primary has moved to another address since this connection was made."""
        return self._primary.address not in (None, (self.host, self.port))

    def connect(self) -> None:
        """Connects if the connection is not open. Called before each command and for each link."""
        self._primary.recheck()
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
        super().connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except MovedError as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("another node has the keys now") from error

    def can_read(self, timeout: float = 0) -> bool:
        """Whether data has arrived.

        :raises redis.exceptions.ConnectionError: if the primary has moved to another address. A link to
            the former primary ends in this way.
        """
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("the primary is another server now")
        return bool(super().can_read(timeout))


class PrimarySSLConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """A connection to the primary that uses TLS."""


def clients_of(
    make_primary: Callable[[], Primary], options: dict[str, Any], settings: BrokerSettings
) -> Clients:
    """Returns redis-py's clients for a primary. Opens no connection yet.

    :param make_primary: each client looks up the primary by itself.
    :param options: redis-py's options as `url_options` returns them.
    """
    options = {**pool_options(settings.timeout), **options}
    kind = PrimarySSLConnection if options.pop("ssl") else PrimaryConnection
    return Clients(
        lambda: BlockingConnectionPool(connection_class=kind, connection_pool=make_primary(), **options),
        settings.setting,
    )
