"""Writes log lines: when a stream opens or closes, and totals at intervals.

No line is written for a single event that is published or sent. All loggers are below `flask_sse_push`. Each
record also has its facts as attributes (`extra`), so that JSON formatters show them. The attribute `event`
says what happened. No record contains a token, a cookie or a query string.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Settings
from ..errors import ConfigError
from ..hub.callbacks import CallbackFailed, calling
from ..hub.counters import CLIENT, CounterKey, Gauges
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.printable import printable
from .default_handler import DefaultHandler

#: Name of the logger that is the parent of all loggers of this package.
ROOT = "flask_sse_push"
#: At most this many characters of a text that a client may have chosen are logged.
MAX_TEXT = 300

logger = logging.getLogger(__name__)


class StreamLog(StreamListener):
    """Writes a log line at INFO when a stream opens, closes, or loses events for good.

    An app's log handler that raises an error does no harm to the streams.
    """

    def opened(self, stream: Stream) -> None:
        if logger.isEnabledFor(logging.INFO):
            _write("stream %s opened", stream.connection, extra={"event": "stream_opened", **_facts(stream)})

    def closed(self, stream: Stream) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        events, size = stream.sent
        reason, duration = stream.reason or CLIENT, round(max(0.0, time.time() - stream.opened_at), 3)
        facts = {"reason": reason, "duration": duration, "events": events, "bytes": size}
        _write(
            "stream %s closed (%s) after %.1f seconds, %d events, %d bytes",
            stream.connection, reason, duration, events, size,
            extra={"event": "stream_closed", **_facts(stream), **facts},
        )  # fmt: skip

    def lost(self, stream: Stream) -> None:
        if logger.isEnabledFor(logging.INFO):
            extra = {"event": "stream_reset", **_facts(stream)}
            _write("stream %s lost events for good and got sse.reset", stream.connection, extra=extra)


def _write(text: str, *values: object, extra: Mapping[str, Any]) -> None:
    with contextlib.suppress(CallbackFailed), calling("log handler", logger):
        logger.info(text, *values, extra=extra)


def _facts(stream: Stream) -> dict[str, Any]:
    return {
        "connection": stream.connection,
        "user_id": one_line(stream.user_id),
        "channels": list(stream.channels),
        "address": one_line(stream.address),
    }


def one_line(text: str | None, most: int = MAX_TEXT) -> str | None:
    """Returns the first `most` characters of the text, with escapes; None if there is no text.

    So a client can neither forge lines of the log nor control the terminal of its reader.
    """
    return None if text is None else printable(text[:most])


class TotalsLog:
    """Logs at level INFO how much each counter of this process has grown since the last line.

    Writes no line if no counter has grown.

    :param totals: a function that returns the values of all counters since the process started.
    :param gauges: a function that returns the current gauges.
    :param every: seconds between two lines.
    """

    def __init__(
        self, totals: Callable[[], Mapping[CounterKey, int]], gauges: Callable[[], Gauges], every: float
    ) -> None:
        self._totals = totals
        self._gauges = gauges
        self._every = every
        self._next = time.monotonic() + every
        self._logged: Mapping[CounterKey, int] = {}

    def write_if_due(self) -> None:
        """Writes a line if `every` seconds have passed since the last line. Called about once a second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        totals = self._totals()
        if totals == self._logged:
            return
        before, self._logged = self._logged, totals
        since = {_name(key): total - before.get(key, 0) for key, total in totals.items()}
        gauges = self._gauges()._asdict()
        gauges["deaf"] = gauges.pop("link_down")
        shown = ", ".join(f"{name} {value}" for name, value in sorted(since.items()) if value)
        logger.info(
            "%d streams; in the last %g seconds: %s", gauges["streams"], self._every, shown,
            extra={"event": "totals", "seconds": self._every, **gauges, "since": since},
        )  # fmt: skip


def _name(key: CounterKey) -> str:
    return f"{key.name}.{key.label}" if key.label else key.name


def set_up(settings: Settings) -> None:
    """Makes this package write its log records, if the app has configured no logging. May be called again.

    If SSE_PUSH_LOG_JSON is set, the records are written to stderr as JSON, whatever the app has configured:
    each record is an object on one line.

    :raises ConfigError: if SSE_PUSH_LOG_JSON is set and python-json-logger is not installed.
    """
    root = logging.getLogger(ROOT)
    wanted = _JsonHandler if settings.log_json else DefaultHandler
    if any(isinstance(handler, wanted) for handler in root.handlers):
        return
    if not settings.log_json:
        root.addHandler(DefaultHandler())
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
    """The log handler that `set_up` adds. Its class distinguishes it from the app's own handlers."""
