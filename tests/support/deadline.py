"""Waits until a condition holds, instead of sleeping for a fixed time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: A machine may be this many times slower than the developers' machine: waits fail this many times later.
SLOWEST = 6.0
#: Seconds that `_work` takes on the developers' machine when it is idle.
WORK_SECONDS = 0.012


def eventually(condition: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """Calls `condition` until its value is true, and returns that value. Fails with the last value after
    `seconds` times `SLOWEST`."""
    deadline = time.monotonic() + SLOWEST * seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {SLOWEST * seconds} seconds"
        time.sleep(every)


def stretched(seconds: float) -> float:
    """A time limit for this machine. `seconds` is the limit on a fast idle machine. The result is longer when
    more processes wait to run than there are processors, and when this machine is slow now. To find out, this
    computes for 60 ms or more: call it once in a test, not in a loop."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    slowness = max(_work() for _ in range(5)) / WORK_SECONDS
    return seconds * max(1.0, waiting) * max(1.0, slowness)


def _work() -> float:
    """Does a fixed amount of work; returns the seconds that it took."""
    began = time.monotonic()
    total = 0
    for number in range(200_000):
        total += number * number % 7
    return time.monotonic() - began


def usual_time(action: Callable[[], object], times: int = 7) -> float:
    """The median of the seconds that `action` takes. A busy machine may make a single call slow."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        action()
        taken.append(time.monotonic() - began)
    return sorted(taken)[times // 2]
