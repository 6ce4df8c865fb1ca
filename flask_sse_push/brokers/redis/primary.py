"""Connections to a server whose address changes: the primary of a service, or the owner of a slot."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import ConnectionError, MovedError, RedisError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

#: Seconds after which a process asks again where the primary is, though its connections are fine: a server
#: that was replaced and does not know it goes on as before.
RECHECK = 5.0

Address = tuple[str, int]


def parse_hosts(text: str, port: int) -> list[Address]:
    """The addresses in `host:port,host,[::1]:port`.

    :param port: where none is given.
    :raises ValueError: naming what is no host.
    """
    parts = [urlsplit(f"//{host}") for host in text.split(",")]
    if not all(part.hostname for part in parts):
        raise ValueError(f"{text!r} must be hosts with commas between them")
    return [(part.hostname or "", part.port or port) for part in parts]


class Primary(ABC):
    """Where the primary is, as far as this process knows. Stands where redis-py's connections have a pool."""

    is_master = True
    check_connection = False
    service_name = "primary"

    def __init__(self, timeout: float) -> None:
        self._lock = threading.Lock()
        self._timeout = timeout
        self.address: Address | None = None
        self._asked_at = 0.0

    @abstractmethod
    def find(self) -> Address:
        """Asks where it is; one thread at a time. Raises redis-py's ConnectionError when nobody knows."""

    def get_master_address(self) -> Address:
        """Finds it anew: called by each connection that is being made."""
        if not self._lock.acquire(timeout=self._timeout):
            raise ConnectionError("whoever knows the primary does not answer")
        self._asked_at = time.monotonic()
        try:
            self.address = self.find()
            return self.address
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

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except MovedError as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("another node has the keys now") from error

    def can_read(self, timeout: float = 0) -> bool:
        """Whether something has come. Ends the wait of a link that listens to a former primary, too."""
        if self.outdated:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError("the primary is another server now")
        return bool(super().can_read(timeout))


class PrimarySSLConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """The same over TLS."""
