"""Waiting on conditions, never on the clock alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """The first true value of `condition`; fails with its last value when `seconds` are over."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} seconds"
        time.sleep(every)


def stretched(seconds: float) -> float:
    """A limit of `seconds` as it is on a machine with nothing else to do: longer when more is waiting to run
    than there are processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def usual_time(action: Callable[[], object], times: int = 7) -> float:
    """Seconds that `action` takes, in the middle of several times: one of them may meet a busy machine."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        action()
        taken.append(time.monotonic() - began)
    return sorted(taken)[times // 2]
