"""Handlers of the routes for metrics and health, and of the route where browser clients report problems."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Request, Response, jsonify

from ..brokers.base import NO_INBOX, Broker
from ..brokers.tracing import is_traceparent
from ..errors import BrokerUnavailable, ErrorCode, Refused
from ..hub import background
from ..monitoring import health
from ..monitoring.labels import CLIENT_KINDS
from ..monitoring.reporter import METRICS_FOLDER, has_prometheus
from ..transports import wsgi_server
from .body import read_body
from .capacity import max_streams
from .refusal import bad_request
from .services import Services

#: The largest number that a field of a report may have.
MAX_AMOUNT = 10_000
#: The field of a report with measured times: how many milliseconds events took to the page.
LATENCY = "latency"
#: At most how many times a report may have, and the longest time, in milliseconds.
MAX_TIMES, MAX_TIME = 50, 600_000
#: The field of a report with traced events: of each the `traceparent`, when the broker stored it and when the
#: page's handler got it, in milliseconds since 1970.
TRACES = "traces"
#: At most how many traced events a report may have, and at most how old they may be, in seconds.
MAX_TRACES, MAX_TRACE_AGE = 5, 3600
#: A report with more bytes than this is refused.
MAX_REPORT = 1000
#: How many reports one worker accepts. The first number is the limit per second in the long run. The second
#: number is the limit for reports that come at the same time after a pause.
RATE, BURST = 20.0, 100.0


def metrics(services: Services, request: Request) -> Response:
    """Returns the metrics of all workers on this machine, in Prometheus' text format.

    :raises Refused: 503, if prometheus-client or its shared folder is missing; the message says what to do.
    """
    if not has_prometheus():
        raise _unavailable("metrics need prometheus-client: pip install flask-sse-push[metrics]")
    from ..monitoring.prometheus import exposition, set_backlogs

    if wsgi_server.worker_count() > 1 and not os.environ.get(METRICS_FOLDER):
        raise _unavailable(
            f"gunicorn runs several workers and {METRICS_FOLDER} names no folder, so only the metrics of one "
            f"worker are known; set {METRICS_FOLDER} to an empty folder before gunicorn starts, see "
            "docs/operations.md"
        )
    services.publishing.reporter.export()
    set_backlogs()
    text, content_type = exposition(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})


def check_health(services: Services) -> Response:
    """Returns the health of this worker as JSON. The HTTP status is 503 if the health is CRITICAL.

    Blocks for one call to each shard of the broker.
    """
    health_now, seconds, streams = assess(services)
    body = {**health_now.as_json(), "streams": streams, "broker_seconds": seconds, "pid": os.getpid()}
    response = jsonify(body)
    response.status_code = 503 if health_now.status == health.CRITICAL else 200
    response.headers["Cache-Control"] = "no-store"
    return response


def assess(services: Services) -> tuple[health.Health, float | None, int]:
    """Returns the health of this worker, how long a call to the broker took, and how many streams are open.

    The time is in seconds, and None if the broker did not answer. Blocks for one call to each shard.
    """
    error, seconds = "", None
    try:
        seconds = slowest_call(services.publishing.broker)
    except BrokerUnavailable as problem:
        error = str(problem)
    gauges = services.gauges()
    vitals = health.Vitals(
        broker_seconds=seconds,
        broker_error=error,
        streams=gauges.streams,
        places=max_streams(services.settings),
        linked=not gauges.link_down,
        probe=gauges.probe,
        stopping=wsgi_server.is_stopping(),
        not_shared=services.broker_not_shared(),
        ended_threads=background.ended(),
    )
    return health.assess(vitals), seconds, gauges.streams


def slowest_call(broker: Broker) -> float:
    """Calls each shard of the broker once. Returns how many seconds the slowest call took. Blocks.

    :raises BrokerUnavailable: if a shard does not answer in time.
    """
    return max([_call(shard) for shard in broker.shards])


def _call(shard: Broker) -> float:
    started = time.monotonic()
    shard.probe(NO_INBOX)
    return time.monotonic() - started


class RateLimit:
    """Limits how many reports one worker accepts from all clients together. The algorithm is a token bucket.

    :param rate: how many reports are allowed per second in the long run.
    :param burst: how many reports are allowed at the same time after a pause.
    """

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled = burst, time.monotonic()

    def take(self) -> bool:
        """Returns whether one more report is allowed; if so, counts the report. Does not block."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def take_report(services: Services, request: Request, rate_limit: RateLimit) -> None:
    """Adds the numbers in a client's report to the counters.

    A report is such as `{"opened": 2, "lost": 1, "latency": [12, 7]}`.

    :raises Refused: 403, if the page's origin is not allowed; 429, if there are too many reports; 400, 413 or
        415, if the body is not a valid report.
    """
    services.check_origin(request)
    if not rate_limit.take():
        raise Refused(429, ErrorCode.RATE_LIMIT_EXCEEDED, "clients send too many reports", retry_after=60)
    report = read_body(request, (*CLIENT_KINDS, LATENCY, TRACES), MAX_REPORT)
    times, traces = report.pop(LATENCY, []), report.pop(TRACES, [])
    if not isinstance(times, list) or len(times) > MAX_TIMES or not all(map(_is_time, times)):
        valid = f"a list of at most {MAX_TIMES} whole numbers from 0 to {MAX_TIME} (milliseconds)"
        raise bad_request(f"{LATENCY} must be {valid}")
    if not isinstance(traces, list) or len(traces) > MAX_TRACES or not all(map(_is_trace, traces)):
        valid = (
            f"a list of at most {MAX_TRACES} lists, each with a traceparent and two times of the last hour"
        )
        raise bad_request(f"{TRACES} must be {valid}")
    for kind, amount in report.items():
        if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
            raise bad_request(f"{kind} must be a whole number from 0 to {MAX_AMOUNT}")
    for kind, amount in report.items():
        if amount:
            services.publishing.counters.count("client", kind, amount)
    if times:
        services.publishing.counters.add_handled(time / 1000 for time in times)
    tracing = services.publishing.announcer.tracing
    if tracing is not None:
        for traceparent, stored, handled in traces:
            tracing.handled(traceparent, stored / 1000, handled / 1000)


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_TIME


def _unavailable(message: str) -> Refused:
    return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message)


def _is_trace(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and is_traceparent(value[0]) and _are_recent(value[1:])


def _are_recent(times: list[Any]) -> bool:
    """Whether two times in milliseconds are in order, and not far from now. Clocks may differ a little."""
    if not all(type(value) is int for value in times):
        return False
    now = time.time() * 1000
    oldest, newest = now - 1000 * MAX_TRACE_AGE, now + 60_000
    return bool(oldest <= times[0] <= times[1] + 1000 <= newest)
