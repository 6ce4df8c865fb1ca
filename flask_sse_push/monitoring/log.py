"""What goes into the log: streams that come and go, refusals, totals now and then. Never a single event.

All loggers are below `flask_sse_push`. Each record has its facts as attributes (`extra`), `event` first, so
that JSON formatters show them. Nothing here holds a token, a cookie or a query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Settings
from ..errors import ConfigError, Refused
from ..hub.counters import CLIENT, CounterKey, Gauges
from ..hub.listener import StreamListener
from ..hub.stream import Stream

#: The root of all loggers of this package.
ROOT = "flask_sse_push"
#: Characters of a text that a client may have had a hand in.
LONGEST = 300

logger = logging.getLogger(__name__)


class StreamLog(StreamListener):
    """Logs the life of streams, at INFO."""

    def opened(self, stream: Stream) -> None:
        if logger.isEnabledFor(logging.INFO):
            facts = _stream(stream)
            logger.info("stream %s opened", stream.connection, extra={"event": "stream_opened", **facts})

    def closed(self, stream: Stream) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        events, size = stream.sent
        reason, duration = stream.reason or CLIENT, round(max(0.0, time.time() - stream.since), 3)
        facts = {"reason": reason, "duration": duration, "events": events, "bytes": size}
        logger.info(
            "stream %s closed (%s) after %.1f seconds, %d events, %d bytes",
            stream.connection, reason, duration, events, size,
            extra={"event": "stream_closed", **_stream(stream), **facts},
        )  # fmt: skip

    def lost(self, stream: Stream) -> None:
        if logger.isEnabledFor(logging.INFO):
            extra = {"event": "stream_reset", **_stream(stream)}
            logger.info("stream %s was told of lost events", stream.connection, extra=extra)


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "connection": stream.connection,
        "user_id": stream.user_id,
        "channels": list(stream.channels),
        "address": stream.address,
    }


def refused(refusal: Refused, address: str | None, path: str) -> None:
    """Logs a refusal at INFO: a client's mistake is no fault of the server's."""
    if logger.isEnabledFor(logging.INFO):
        code, why = int(refusal.code), _harmless(refusal.message)
        facts = {"code": code, "status": refusal.status, "address": address, "path": _harmless(path)}
        extra = {"event": "refused", **facts, "why": why}
        logger.info("refused with %d, code %d: %s", refusal.status, code, why, extra=extra)


def _harmless(text: str) -> str:
    """The text without what could begin a new line of the log."""
    return text[:LONGEST].encode("unicode_escape").decode()


class Totals:
    """Logs the counts of this process every `every` seconds, when there were any since. At INFO."""

    def __init__(
        self, totals: Callable[[], Mapping[CounterKey, int]], gauges: Callable[[], Gauges], every: float
    ) -> None:
        self._totals = totals
        self._gauges = gauges
        self._every = every
        self._due = time.monotonic() + every
        self._told: Mapping[CounterKey, int] = {}

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._every
        totals = self._totals()
        if totals == self._told:
            return
        before, self._told = self._told, totals
        since = {_name(count): total - before.get(count, 0) for count, total in totals.items()}
        gauges = self._gauges()._asdict()
        shown = ", ".join(f"{name} {value}" for name, value in sorted(since.items()) if value)
        logger.info(
            "%d streams; in the last %g seconds: %s", gauges["streams"], self._every, shown,
            extra={"event": "totals", "seconds": self._every, **gauges, "since": since},
        )  # fmt: skip


def _name(count: CounterKey) -> str:
    return f"{count.name}.{count.label}" if count.label else count.name


def set_up(settings: Settings) -> None:
    """With SSE_PUSH_LOG_JSON, lets this package's records go to stderr as JSON, one object a line; once.

    :raises ConfigError: when python-json-logger is not installed.
    """
    root = logging.getLogger(ROOT)
    if not settings.log_json or any(isinstance(each, _JsonHandler) for each in root.handlers):
        return
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError:
        raise ConfigError(
            "SSE_PUSH_LOG_JSON", True, "off, or python-json-logger installed: flask-sse-push[logs]"
        ) from None
    handler = _JsonHandler()
    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
    root.addHandler(handler)
    root.propagate = False
    if root.level == logging.NOTSET:
        root.setLevel(logging.INFO)


class _JsonHandler(logging.StreamHandler[Any]):
    """Ours, told apart from the app's."""
