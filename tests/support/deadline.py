"""Waiting on conditions, never on the clock alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How much slower than the developers' machine another may be: waits last so much longer before they fail.
PATIENCE = 6.0
#: Seconds that `_work` takes on a machine with nothing else to do.
WORK_SECONDS = 0.012


def eventually(condition: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """The first true value of `condition`; fails with its last value when `seconds`, many times longer on
    slow machines, are over."""
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {PATIENCE * seconds} seconds"
        time.sleep(every)


def stretched(seconds: float) -> float:
    """A limit of `seconds` as it is on a quick machine with nothing else to do: longer when more is waiting
    to run than there are processors, and when this one is slow at this moment."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    slowness = max(_work() for _ in range(5)) / WORK_SECONDS
    return seconds * max(1.0, waiting) * max(1.0, slowness)


def _work() -> float:
    """Seconds that a fixed piece of work takes now."""
    began = time.monotonic()
    total = 0
    for number in range(200_000):
        total += number * number % 7
    return time.monotonic() - began


def usual_time(action: Callable[[], object], times: int = 7) -> float:
    """Seconds that `action` takes, in the middle of several times: one of them may meet a busy machine."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        action()
        taken.append(time.monotonic() - began)
    return sorted(taken)[times // 2]
