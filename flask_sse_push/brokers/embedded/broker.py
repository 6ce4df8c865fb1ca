"""The broker on an embedded server: each new connection starts the server if it does not run."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis import BlockingConnectionPool
from redis.connection import UnixDomainSocketConnection

from ..redis.broker import RedisBroker
from ..redis.client import BrokerSettings, Clients, pool_options
from .server import IDLE, EmbeddedServer

#: What an embedded:// URL must be.
EXPECTED = (
    "embedded:// or embedded://name, with a name of 1 to 64 of A-Z a-z 0-9 _ . -, and with no option but "
    "idle, a number of seconds from 1 to 86400: embedded://?idle=60"
)


def parse(url: str, root: str | None = None) -> EmbeddedServer:
    """Returns the server that an embedded:// URL names. Starts nothing.

    :param root: the app's `root_path`; None for a process without an app.
    :raises ValueError: if the URL is not as `EXPECTED` says.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    seconds = options.pop("idle", str(IDLE))
    idle = float(seconds) if re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", seconds) else 0.0
    is_name = re.fullmatch(r"([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63})?", parts.netloc)
    if options or parts.fragment or parts.path not in ("", "/") or not is_name or not 1 <= idle <= 86400:
        raise ValueError(EXPECTED)
    return EmbeddedServer(parts.netloc, root, idle)


def connect(url: str, settings: BrokerSettings, root: str | None) -> RedisBroker:
    """Returns the broker on the server that an embedded:// URL names. Starts nothing yet.

    A call that starts the server takes longer than `settings.timeout`.

    :param root: the app's `root_path`; None for a process without an app.
    :raises ValueError: if the URL is not as `EXPECTED` says.
    """
    server = parse(url, root)
    options = pool_options(settings.timeout)
    make_pool = partial(BlockingConnectionPool, connection_class=EmbeddedConnection, server=server, **options)
    return RedisBroker(Clients(make_pool, settings.setting), *settings.of_broker)


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection of redis-py to an embedded server, which need not run yet."""

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._server = server

    def _connect(self) -> Any:
        self.path = self._server.ensure()
        return super()._connect()  # type: ignore[no-untyped-call]
