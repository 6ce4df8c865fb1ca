"""`flask sse doctor`: looks at a set-up and says what is wrong, why that matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...brokers.base import Broker
from ...config import Settings
from .broker import examine_broker
from .connection import examine_connection
from .finding import Finding
from .server import examine_server, load
from .settings import examine_settings


def examine_all(
    broker: Broker,
    wanted: Settings,
    config: Mapping[str, Any],
    *,
    gunicorn: str = "",
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Finding]:
    """Everything that can be found out, as it is found. Blocks.

    :param config: the app's.
    :param gunicorn: the options it is started with; its configuration file and environment count too.
    :param url: a stream of the running app, as browsers reach it; None leaves that out.
    :param headers: what to send there.
    """
    yield from examine_settings(wanted, config)
    yield from examine_server(load(gunicorn), wanted)
    yield from examine_broker(broker, wanted)
    if url is not None:
        yield from examine_connection(url, headers or {})
