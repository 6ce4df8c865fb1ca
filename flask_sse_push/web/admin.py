"""What operators and clients ask and tell beside the stream: metrics, health, reports of clients."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Request, Response, jsonify

from ..brokers.base import NO_INBOX, Broker
from ..errors import BrokerUnavailable, ErrorCode, Refused
from ..hub.counters import Counters
from ..monitoring import health
from ..monitoring.reporter import METRICS_FOLDER, has_prometheus
from ..transports import server
from . import api, cors
from .services import Services, max_streams

#: What a client's report may count.
KINDS = ("opened", "lost", "silent", "refused", "errors")
#: The most that one report may say of each.
MOST = 10_000
#: Bytes of a report.
MAX_REPORT = 1000
#: Reports that one worker takes in a second, and at once after a quiet time.
RATE, BURST = 20.0, 100.0


def metrics(services: Services, request: Request) -> Response:
    """The metrics of all workers of this machine, in Prometheus' text format.

    :raises Refused: 503, saying what to install or to set.
    """
    if not has_prometheus():
        raise _unavailable("metrics need prometheus-client: pip install flask-sse-push[metrics]")
    from ..monitoring.prometheus import exposition

    if server.worker_count() > 1 and not os.environ.get(METRICS_FOLDER):
        raise _unavailable(
            f"gunicorn runs several workers and {METRICS_FOLDER} names no folder: these would be the figures "
            "of one of them; set it to an empty folder before gunicorn starts, see docs/operations.md"
        )
    services.publishing.reporter.export()
    text, content_type = exposition(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})


def check_health(services: Services) -> Response:
    """How this worker is, as JSON; 503 when it is CRITICAL. Blocks for a call to each shard of the broker."""
    error, seconds = "", None
    try:
        seconds = slowest_call(services.publishing.broker)
    except BrokerUnavailable as problem:
        error = str(problem)
    gauges = services.gauges()
    found = health.assess(
        health.Vitals(
            broker_seconds=seconds,
            broker_error=error,
            streams=gauges.streams,
            places=max_streams(services.settings),
            linked=not gauges.link_down,
            probe=gauges.probe,
            stopping=server.is_stopping(),
            broker_not_shared=services.broker_not_shared(),
        )
    )
    body = {**found.as_json(), "streams": gauges.streams, "broker_seconds": seconds, "pid": os.getpid()}
    response = jsonify(body)
    response.status_code = 503 if found.status == health.CRITICAL else 200
    response.headers["Cache-Control"] = "no-store"
    return response


def slowest_call(broker: Broker) -> float:
    """Seconds that the slowest of the shards took to answer. Blocks for a call to each.

    :raises BrokerUnavailable: when one of them does not answer in time.
    """
    return max([_call(shard) for shard in broker.shards])


def _call(shard: Broker) -> float:
    began = time.monotonic()
    shard.probe(NO_INBOX)
    return time.monotonic() - began


class Bucket:
    """Lets so many through in a second; one for all clients of a worker."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._filled = burst, time.monotonic()

    def take(self) -> bool:
        """Whether one more may pass. Does not block."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def take_report(services: Services, request: Request, bucket: Bucket) -> None:
    """Counts what a client reports of its connections: `{"opened": 2, "lost": 1}`.

    :raises Refused: 400, 403, 413, 415 or 429.
    """
    cors.check(request, services.settings.cors_origins)
    if not bucket.take():
        raise Refused(429, ErrorCode.RATE_LIMIT_EXCEEDED, "too many reports by all clients", retry_after=60)
    found = api.body(request, MAX_REPORT)
    api.unknown_fields(found, KINDS)
    for kind, amount in found.items():
        if type(amount) is not int or not 0 <= amount <= MOST:
            raise api.bad(f"{kind} must be a whole number from 0 to {MOST}")
    _count(services.publishing.counters, found)


def _count(counters: Counters, report: dict[str, Any]) -> None:
    for kind, amount in report.items():
        if amount:
            counters.count("client", kind, amount)


def _unavailable(message: str) -> Refused:
    return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message)
