"""Connections to a server whose address changes: the primary of a service, or the owner of a slot."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError, MovedError, RedisError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from .client import pool_options

#: Seconds after which a process looks up the primary again although its connections work: a server that was
#: replaced and does not know it goes on as before.
RECHECK = 5.0

Address = tuple[str, int]


def parse_hosts(text: str, port: int) -> list[Address]:
    """The addresses in `host:port,host,[::1]:port`.

    :param port: for hosts without one.
    :raises ValueError: when a part is not a host.
    """
    parts = [urlsplit(f"//{host}") for host in text.split(",")]
    if not all(part.hostname for part in parts):
        raise ValueError(f"{text!r} must be hosts with commas between them")
    return [(part.hostname or "", part.port or port) for part in parts]


class Primary(ABC):
    """Looks up the primary and remembers its address. Takes the place of a pool in redis-py's connections."""

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
        """Looks up the primary; called by one thread at a time. Raises redis-py's ConnectionError."""

    def get_master_address(self) -> Address:
        """Looks up the primary. redis-py calls it for each connection that it makes."""
        if not self._lock.acquire(timeout=self._timeout):
            raise ConnectionError("the lookup of the primary by another thread did not end in time")
        self._found_at = time.monotonic()
        try:
            self.address = self.find()
            return self.address
        finally:
            self._lock.release()

    def recheck(self) -> None:
        """Looks up the primary when the last lookup is old. Keeps the old address when that fails."""
        if time.monotonic() - self._found_at > RECHECK and not self._lock.locked():
            with contextlib.suppress(RedisError):
                self.get_master_address()


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the primary. It is closed when the primary has moved to another address."""

    def __init__(self, *, connection_pool: Primary, **options: Any) -> None:
        super().__init__(connection_pool=connection_pool, **options)  # type: ignore[no-untyped-call]
        self._primary = connection_pool

    @property
    def outdated(self) -> bool:
        """Whether the primary has moved to another address since this connection was made."""
        return self._primary.address not in (None, (self.host, self.port))

    def connect(self) -> None:
        """Connects unless a connection is there. redis-py calls it before each command and for each link."""
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
        """Whether data has arrived. Raises when the primary has moved, so a link to a former primary ends."""
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("the primary is another server now")
        return bool(super().can_read(timeout))


class PrimarySSLConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """A connection to the primary over TLS."""


def client_of(primary: Primary, options: dict[str, Any], timeout: float) -> Redis:
    """redis-py's client for `primary`. Opens nothing yet.

    :param options: as `url_options` returns them.
    :param timeout: seconds that one call may take.
    """
    options = {**pool_options(timeout), **options}
    kind = PrimarySSLConnection if options.pop("ssl") else PrimaryConnection
    pool = BlockingConnectionPool(connection_class=kind, connection_pool=primary, **options)
    return Redis(connection_pool=pool)
