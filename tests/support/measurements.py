"""What each fault test measured. pytest prints it at the end of the run."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import quantiles
from typing import Any


class Measurements:
    """The measurements of one test, in the order in which they were noted."""

    def __init__(self, test: str) -> None:
        self.test = test
        self._noted: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        """Keeps values under their names. Floats are printed with three digits."""
        self._noted.update(values)

    def __str__(self) -> str:
        shown = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in self._noted.items()]
        return f"{self.test}: " + ", ".join(shown)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def percentile(values: Iterable[float], percent: int) -> float:
    """The percentile: `percent` of 100 values are at most as large as the result."""
    values = list(values)
    if len(values) < 2:
        return values[0] if values else float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]
