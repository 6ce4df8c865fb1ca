"""What one process counts of one blueprint's streams, and who is told of it."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..hub.counters import Counters, Gauges
from ..hub.shutdown import at_exit
from ..transports import server
from .log import Totals
from .log import logger as log

if TYPE_CHECKING:
    from .prometheus import Exporter

#: Names the folder where several processes share their metrics; see `metrics`.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Reporter:
    """The figures of this process. Prometheus is imported when its metrics are wanted, not before.

    :param levels: how things stand now.
    :param log_totals: seconds between two lines of totals in the log; 0 for none.
    """

    def __init__(self, gauges: Callable[[], Gauges], log_totals: float = 0.0) -> None:
        self.counters = Counters()
        self._gauges = gauges
        self._lock = threading.Lock()
        self._exporter: Exporter | None = None
        # A process alone brings its figures to the metrics when these are asked for.
        shared = os.environ.get(METRICS_FOLDER) and has_prometheus()
        actions: list[Callable[[], None]] = [self.export] if shared else []
        if log_totals and log.isEnabledFor(logging.INFO):
            actions.append(Totals(self.counters.totals, gauges, log_totals))
        self._pulse = Pulse(actions)
        self.counters.wake = self._pulse.wake

    def export(self) -> None:
        """Brings the figures up to now into the process's metrics. Needs prometheus-client."""
        with self._lock:
            if self._exporter is None:
                from .prometheus import Exporter

                self._exporter = Exporter(self.counters.totals, self._gauges)
            self._exporter.flush()

    def close(self) -> None:
        """Tells the last figures; may be called twice."""
        self._pulse.close()


def has_prometheus() -> bool:
    """Whether prometheus-client is installed."""
    return importlib.util.find_spec("prometheus_client") is not None


logger = logging.getLogger(__name__)

#: Seconds between two beats.
EVERY = 1.0


class Pulse:
    """Calls each of `actions` about every second, and once more when the process ends.

    Its thread starts with the first `wake`, and not at all without actions. `close` may be called twice.
    """

    def __init__(self, actions: Sequence[Callable[[], None]]) -> None:
        self._actions = actions
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._started = not actions

    def wake(self) -> None:
        """Makes sure that it beats. Does not block."""
        if self._started:
            return
        with self._lock:
            first, self._started = not self._started, True
        if first:
            server.prepare()
            at_exit.append(self.beat)
            threading.Thread(target=self._run, name="flask-sse-push-pulse", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self.beat()

    def beat(self) -> None:
        """Calls the actions now; one that fails keeps no other from its turn."""
        for action in self._actions:
            try:
                action()
            except Exception:
                logger.exception("handing on the worker's figures failed")

    def close(self) -> None:
        """Ends the thread after a last beat."""
        if self.beat in at_exit:
            at_exit.remove(self.beat)
            self._stop.set()
            self.beat()
