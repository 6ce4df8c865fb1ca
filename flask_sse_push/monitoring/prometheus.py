"""Shows the counters as Prometheus metrics, added up over all workers of a machine.

Several workers need prometheus-client's multiprocess mode: before prometheus_client is imported, the variable
PROMETHEUS_MULTIPROC_DIR of the environment must name a folder, and each worker writes its values there. See
https://prometheus.github.io/client_python/multiprocess/. The hub counts in plain numbers, which are added to
the metrics about once a second. So metrics do not slow down the sending of events.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, multiprocess
from prometheus_client.exposition import choose_encoder

from ..brokers import forks
from ..hub.counters import CounterKey, Counters, Gauges
from .backlog import of_current_app
from .histograms import HANDLED, WRITTEN, worker_name
from .labels import KNOWN

logger = logging.getLogger(__name__)

_PREFIX = "sse_push_"
_COUNTERS: Mapping[str, tuple[str, str, str]] = {
    "opened": ("streams_opened", "Streams that were opened.", ""),
    "closed": ("streams_closed", "Streams that ended, by reason; client: the client left.", "reason"),
    "refused": ("refused", "Requests that were refused, by error code.", "code"),
    "published": ("events_published", "Events that these processes published.", ""),
    "delivered": ("events_delivered", "Events given to streams; one event to 1,000 streams adds 1,000.", ""),
    "sent_bytes": ("sent_bytes", "Bytes of the events given to streams.", ""),
    "replayed": ("events_replayed", "Missed events sent to clients that came back.", ""),
    "replayed_bytes": ("replayed_bytes", "Bytes of the missed events sent to clients that came back.", ""),
    "resets": ("resets", "Streams that got sse.reset: they lost events for good.", ""),
    "reconnects": ("broker_reconnects", "Times that a worker's link to the broker was renewed.", ""),
    "callback_errors": ("callback_errors", "Errors that functions of the app raised, by kind.", "kind"),
    "callbacks_dropped": ("callbacks_dropped", "Calls of signals' receivers that were left out.", "kind"),
    "thread_ends": ("thread_ends", "Threads that ended and were started again, by name.", "thread"),
    "client": ("client_reports", "What browser clients reported about their connections, by kind.", "kind"),
}
COUNTERS = {
    name: Counter(_PREFIX + metric, text, [label] if label else [])
    for name, (metric, text, label) in _COUNTERS.items()
}
STREAMS = Gauge(_PREFIX + "streams_open", "Streams open now.", multiprocess_mode="livesum")
BUFFERED = Gauge(_PREFIX + "buffered_bytes", "Bytes that wait for slow clients.", multiprocess_mode="livesum")
LINK_DOWN = Gauge(
    _PREFIX + "workers_deaf",
    "Workers that have streams and no link to the broker.",
    multiprocess_mode="livesum",
)
PROBE = Gauge(
    _PREFIX + "probe_seconds",
    "Seconds that the last probe took from a worker to the broker and back, for the slowest worker.",
    multiprocess_mode="livemax",
)
RECHECK_LAG = Gauge(
    _PREFIX + "recheck_lag_seconds",
    "How late the oldest waiting check of a stream's rights is, for the slowest worker.",
    multiprocess_mode="livemax",
)
OUTBOX = Gauge(
    _PREFIX + "outbox_events", "Events that wait in the app's outboxes.", multiprocess_mode="livemostrecent"
)
OUTBOX_AGE = Gauge(
    _PREFIX + "outbox_age_seconds",
    "How long the oldest event in the app's outboxes has waited.",
    multiprocess_mode="livemostrecent",
)


@lru_cache(1)  # a process has one name
def _worker() -> str:
    return worker_name(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))


forks.call_in_child(_worker.cache_clear)


class Exporter:
    """Adds the counts of one blueprint to the metrics of this process.

    Several blueprints in one process add their counts to the same metrics.

    :param counters: the counters of the blueprint.
    :param gauges: a function that returns the current gauges.
    """

    def __init__(self, counters: Counters, gauges: Callable[[], Gauges]) -> None:
        self._counters = counters
        self._gauges = gauges
        self._exported: dict[CounterKey, int] = {}
        self._exported_gauges = Gauges()
        self._written = WRITTEN.labels(_worker())
        for name, values in KNOWN.items():
            for value in values:
                COUNTERS[name].labels(value)  # starts the series with 0

    def export(self) -> None:
        """Adds to the metrics what was counted since the last call. Must not run in two threads at once."""
        gauges = self._gauges()
        totals = {**self._counters.totals(), CounterKey("reconnects"): gauges.reconnects}
        for count, total in totals.items():
            self._add(count, total - self._exported.get(count, 0))
        self._exported = totals
        self._set(gauges)
        for times, histogram in ((self._counters.written, self._written), (self._counters.handled, HANDLED)):
            while times:
                histogram.observe(times.popleft())

    def _add(self, count: CounterKey, amount: int) -> None:
        if amount > 0:
            metric = COUNTERS[count.name]
            (metric.labels(count.label) if count.label else metric).inc(amount)

    def _set(self, gauges: Gauges) -> None:
        before, self._exported_gauges = self._exported_gauges, gauges
        for gauge, now, then in (
            (STREAMS, gauges.streams, before.streams),
            (BUFFERED, gauges.buffered, before.buffered),
            (LINK_DOWN, gauges.link_down, before.link_down),
        ):
            if now != then:
                gauge.inc(now - then)
        if gauges.probe is not None and gauges.probe != before.probe:
            PROBE.set(gauges.probe)
        if gauges.recheck_lag != before.recheck_lag:
            RECHECK_LAG.set(gauges.recheck_lag)


def set_backlogs() -> None:
    """Sets the metrics about the app's outboxes. Blocks for one query for each. Needs an app context."""
    found = []
    for outbox in of_current_app():
        try:
            found.append(outbox.backlog())
        except Exception as error:  # each database driver has exceptions of its own
            logger.warning("the backlog of the outbox %s is not known: %s", outbox.name, error)
    if found:
        OUTBOX.set(sum(each.waiting for each in found))
        OUTBOX_AGE.set(max(each.age for each in found))


def exposition(accept: str) -> tuple[bytes, str]:
    """Returns the metrics of all workers of this machine as text, and the Content-Type of the text.

    The metrics include those that the app itself defines.

    :param accept: the request's `Accept` header.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_registry()), content_type


def _registry() -> CollectorRegistry:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return REGISTRY
    _forget_dead(Path(folder))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def _forget_dead(folder: Path) -> None:
    """Removes the gauges of workers that no longer run. A killed worker could not remove its own gauges."""
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
