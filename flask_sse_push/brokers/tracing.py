"""Traces a share of the events with OpenTelemetry, from the view that publishes to the browser.

A traced event carries the context of its span `sse publish` to the workers and clients, as a `traceparent`
(W3C Trace Context, 3.2). The spans `sse deliver` of a worker and `sse handle` of a page are children of
`sse publish`. So all of them are in the trace of the view. OpenTelemetry is imported only if the app traces.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

logger = logging.getLogger(__name__)

#: W3C Trace Context, 3.2.2.3: the id of a trace, and that of a span, with zeros only is invalid.
_FIELDS = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


class PublishSpan(NamedTuple):
    """The span `sse publish` of one or several events."""

    traceparent: str  # what the events carry
    end: Callable[[], None]


class Tracing:
    """Makes the spans of one process. No method blocks, unless the app's span processor does.

    :param share: which share of the events is traced, from 0 to 1. An event is traced only if it is published
        within a span that is sampled.
    """

    def __init__(self, share: float) -> None:
        from opentelemetry import trace

        self._api = trace
        self._share = share
        self._tracer = trace.get_tracer("flask_sse_push")

    def begin(self) -> PublishSpan | None:
        """Begins the span of a `publish`; the caller must end it. Returns None if it is not traced."""
        current = self._api.get_current_span().get_span_context()
        if not (current.is_valid and current.trace_flags.sampled) or random.random() >= self._share:
            return None
        span = self._tracer.start_span("sse publish", kind=self._api.SpanKind.PRODUCER)
        own = span.get_span_context()
        if not own.is_valid:  # the app's tracer provider makes no real spans
            return None
        return PublishSpan(f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}", span.end)

    def delivered(self, traceparent: str, begin: float, attributes: Mapping[str, str | int]) -> None:
        """Makes the span of a worker that has just written an event to its streams.

        :param traceparent: the field of the event.
        :param begin: Unix time at which the broker stored the event, by this machine's clock.
        """
        self._make("sse deliver", traceparent, begin, time.time(), attributes)

    def handled(self, traceparent: str, begin: float, end: float) -> None:
        """Makes the span of a page that has told when its handler got an event.

        :param begin: Unix time at which the broker stored the event.
        :param end: Unix time at which the handler got it.
        """
        self._make("sse handle", traceparent, begin, end, {})

    def _make(
        self, name: str, traceparent: str, begin: float, end: float, attributes: Mapping[str, str | int]
    ) -> None:
        """Makes a span that has ended already, as a child of `sse publish`."""
        api, found = self._api, _FIELDS.fullmatch(traceparent)
        if found is None:
            return
        parent = api.SpanContext(
            int(found[1], 16), int(found[2], 16), True, trace_flags=api.TraceFlags(int(found[3], 16))
        )
        context = api.set_span_in_context(api.NonRecordingSpan(parent))
        kind, start = api.SpanKind.CONSUMER, int(begin * 1e9)
        span = self._tracer.start_span(name, context, kind, dict(attributes), start_time=start)
        span.end(max(start, int(end * 1e9)))


@lru_cache(8)  # so that the log says once that nothing is traced
def tracing_of(share: float) -> Tracing | None:
    """Returns what traces a share of the events; None if the share is 0 or OpenTelemetry is not installed."""
    if not share:
        return None
    if importlib.util.find_spec("opentelemetry") is None:
        logger.warning(
            "SSE_PUSH_TRACE is %g, but opentelemetry-api is not installed, so no event is traced: "
            "pip install flask-sse-push[trace]",
            share,
        )
        return None
    return Tracing(share)


def is_traceparent(value: object) -> bool:
    """Whether a value is a `traceparent` as events carry it."""
    return isinstance(value, str) and _FIELDS.fullmatch(value) is not None
