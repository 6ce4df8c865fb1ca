"""What one process counts of one blueprint's streams, and who is told of it."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .figures import Figures, Levels
from .logs import Totals
from .logs import logger as log
from .pulse import Pulse

if TYPE_CHECKING:
    from .metrics import Exporter

#: Names the folder where several processes share their metrics; see `metrics`.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Meters:
    """The figures of this process. Prometheus is imported when its metrics are wanted, not before.

    :param levels: how things stand now.
    :param log_totals: seconds between two lines of totals in the log; 0 for none.
    """

    def __init__(self, levels: Callable[[], Levels], log_totals: float = 0.0) -> None:
        self.figures = Figures()
        self._levels = levels
        self._lock = threading.Lock()
        self._exporter: Exporter | None = None
        # A process alone brings its figures to the metrics when these are asked for.
        shared = os.environ.get(METRICS_FOLDER) and has_prometheus()
        actions: list[Callable[[], None]] = [self.export] if shared else []
        if log_totals and log.isEnabledFor(logging.INFO):
            actions.append(Totals(self.figures.totals, levels, log_totals))
        self._pulse = Pulse(actions)
        self.figures.wake = self._pulse.wake

    def export(self) -> None:
        """Brings the figures up to now into the process's metrics. Needs prometheus-client."""
        with self._lock:
            if self._exporter is None:
                from .metrics import Exporter

                self._exporter = Exporter(self.figures.totals, self._levels)
            self._exporter.flush()

    def close(self) -> None:
        """Tells the last figures; may be called twice."""
        self._pulse.close()


def has_prometheus() -> bool:
    """Whether prometheus-client is installed."""
    return importlib.util.find_spec("prometheus_client") is not None
