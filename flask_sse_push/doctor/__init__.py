"""`flask sse doctor`: looks at a set-up and says what is wrong, why that matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..brokers.base import Broker
from ..config import Settings
from . import line, server, settings, store
from .finding import BROKEN, OK, WARNING, Finding


def examine(
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
    yield from settings.examine(wanted, config)
    yield from server.examine(server.load(gunicorn), wanted)
    yield from store.examine(broker, wanted)
    if url is not None:
        yield from line.examine(url, headers or {})


__all__ = ["BROKEN", "OK", "WARNING", "Finding", "examine"]
