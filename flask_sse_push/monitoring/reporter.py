"""Passes the counters of one process to Prometheus and to the log, about once a second."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..brokers import native_threads
from ..hub import background
from ..hub.counters import Counters, Gauges
from ..hub.drain import at_exit
from ..transports import wsgi_server
from .log import TotalsLog
from .log import logger as log

if TYPE_CHECKING:
    from .prometheus import Exporter

logger = logging.getLogger(__name__)

#: Name of the environment variable with the folder in which several processes share their metrics.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
#: Seconds between two reports.
INTERVAL = 1.0


class Reporter:
    """Owns the counters of this process. Reports them about once a second, and a last time at exit.

    The first change of a counter outside native threads starts the thread that reports. If neither metrics
    nor log lines are wanted, no thread starts. prometheus-client is imported by the first report that needs
    it.

    :param gauges: a function that returns the current gauges.
    :param log_totals: seconds between two lines of totals in the log; 0 switches these lines off.
    """

    def __init__(self, gauges: Callable[[], Gauges], log_totals: float = 0.0) -> None:
        self.counters = Counters()
        self._gauges = gauges
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._exporter: Exporter | None = None
        self._reports: list[Callable[[], None]] = []
        if os.environ.get(METRICS_FOLDER) and has_prometheus():  # otherwise the metrics route calls `export`
            self._reports.append(self.export)
            self.counters.want_times()
        if log_totals and log.isEnabledFor(logging.INFO):
            self._reports.append(TotalsLog(self.counters.totals, gauges, log_totals).write_if_due)
        if self._reports:
            self.counters.on_first_count = self._start

    def _start(self) -> None:
        if native_threads.is_native():  # a greenlet would stop with the native thread
            self.counters.on_first_count = self._start  # the next count tries again
            return
        wsgi_server.prepare()
        at_exit.append(self.report)
        background.start("reporter", self._run)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.report()

    def report(self) -> None:
        """Reports the counters now. If one report fails, the other reports are still made."""
        for report in self._reports:
            try:
                report()
            except Exception:
                logger.exception("reporting the worker's counters failed")

    def export(self) -> None:
        """Updates the Prometheus metrics of this process. Needs prometheus-client."""
        with self._lock:
            if self._exporter is None:
                self.counters.want_times()
                from .prometheus import Exporter

                self._exporter = Exporter(self.counters, self._gauges)
            self._exporter.export()

    def close(self) -> None:
        """Makes a last report and ends the thread. May be called twice."""
        if self.report in at_exit:
            at_exit.remove(self.report)
            self._stop.set()
            self.report()


def has_prometheus() -> bool:
    """Returns whether prometheus-client is installed."""
    return importlib.util.find_spec("prometheus_client") is not None
