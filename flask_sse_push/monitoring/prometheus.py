"""Figures as Prometheus metrics, over all workers of a machine by prometheus-client's multiprocess mode.

https://prometheus.github.io/client_python/multiprocess/ is the source of the rules: with several workers the
environment names a folder, in which each writes its values, before prometheus_client is imported. The
figures are counted apart, as plain numbers, and brought here about once a second: an event costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, multiprocess
from prometheus_client.exposition import choose_encoder

from ..hub.counters import CounterKey, Gauges

_PREFIX = "sse_push_"
_COUNTERS: Mapping[str, tuple[str, str, str]] = {
    "opened": ("streams_opened", "Streams that began.", ""),
    "closed": ("streams_closed", "Streams that ended, by reason; client: the client left.", "reason"),
    "refused": ("refused", "Requests that were refused, by error code.", "code"),
    "published": ("events_published", "Events that these processes published.", ""),
    "delivered": ("events_delivered", "Events handed to streams; one to a thousand streams is 1,000.", ""),
    "sent_bytes": ("sent_bytes", "Bytes of the events handed to streams.", ""),
    "replayed": ("events_replayed", "Events that returning streams had missed and were sent.", ""),
    "replayed_bytes": ("replayed_bytes", "Bytes of what returning streams were sent.", ""),
    "resets": ("resets", "Streams that were told of events lost for good.", ""),
    "reconnects": ("broker_reconnects", "Times that a worker's link to the broker was renewed.", ""),
    "client": ("client_reports", "What clients reported, by kind.", "kind"),
}
COUNTERS = {
    name: Counter(_PREFIX + metric, text, [label] if label else [])
    for name, (metric, text, label) in _COUNTERS.items()
}
STREAMS = Gauge(_PREFIX + "streams_open", "Streams open now.", multiprocess_mode="livesum")
BUFFERED = Gauge(_PREFIX + "buffered_bytes", "Bytes that wait for slow clients.", multiprocess_mode="livesum")
DEAF = Gauge(
    _PREFIX + "workers_deaf",
    "Workers that have streams and no link to the broker.",
    multiprocess_mode="livesum",
)
PROBE = Gauge(
    _PREFIX + "probe_seconds",
    "What the last probe took from a worker to the broker and back; the slowest worker's.",
    multiprocess_mode="livemax",
)


class Exporter:
    """Brings one runtime's figures into the process's metrics. Several add up."""

    def __init__(self, totals: Callable[[], Mapping[CounterKey, int]], gauges: Callable[[], Gauges]) -> None:
        self._totals = totals
        self._gauges = gauges
        self._told: dict[CounterKey, int] = {}
        self._before = Gauges()

    def flush(self) -> None:
        """Adds what was counted since the last time. One at a time; does not block."""
        gauges = self._gauges()
        totals = {**self._totals(), CounterKey("reconnects"): gauges.reconnects}
        for count, total in totals.items():
            self._add(count, total - self._told.get(count, 0))
        self._told = totals
        self._set(gauges)

    def _add(self, count: CounterKey, amount: int) -> None:
        if amount > 0:
            metric = COUNTERS[count.name]
            (metric.labels(count.label) if count.label else metric).inc(amount)

    def _set(self, gauges: Gauges) -> None:
        before, self._before = self._before, gauges
        for gauge, now, then in (
            (STREAMS, gauges.streams, before.streams),
            (BUFFERED, gauges.buffered, before.buffered),
            (DEAF, gauges.deaf, before.deaf),
        ):
            if now != then:
                gauge.inc(now - then)
        if gauges.probe is not None and gauges.probe != before.probe:
            PROBE.set(gauges.probe)


def exposition(accept: str) -> tuple[bytes, str]:
    """All metrics of this machine's workers, the app's own too, and their Content-Type.

    :param accept: the request's header.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_worker_counts()), content_type


def _worker_counts() -> CollectorRegistry:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return REGISTRY
    _forget_dead(Path(folder))
    worker_counts = CollectorRegistry()
    multiprocess.MultiProcessCollector(worker_counts)  # type: ignore[no-untyped-call]
    return worker_counts


def _forget_dead(folder: Path) -> None:
    """Takes the gauges of workers that are no more out of the sums: one that was killed cannot do so."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db")}:
        if pid.isdecimal() and not _is_alive(int(pid)):
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
