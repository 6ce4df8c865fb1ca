"""Figures of the fault tests: what each measured, shown together at the end of the run."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import quantiles
from typing import Any


class Counters:
    """One test's figures, in the order they were noted."""

    def __init__(self, test: str) -> None:
        self.test = test
        self._noted: dict[str, Any] = {}

    def note(self, **counters: Any) -> None:
        """Keeps figures under their names; floats are shown with three digits."""
        self._noted.update(counters)

    def __str__(self) -> str:
        shown = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in self._noted.items()]
        return f"{self.test}: " + ", ".join(shown)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def percentile(values: Iterable[float], percent: int) -> float:
    """The value that `percent` of 100 values do not exceed."""
    values = list(values)
    if len(values) < 2:
        return values[0] if values else float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]
