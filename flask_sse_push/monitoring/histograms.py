"""The histograms of how long events take, and the name that a worker has in them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from prometheus_client import Histogram

#: The upper limits of the buckets, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: At most this many workers of a machine have a name of their own.
MAX_NAMES = 64

WRITTEN = Histogram(
    "sse_push_socket_latency_seconds",
    "Seconds from the broker's time of an event until a worker had written the event to a socket; a sample.",
    ["worker"],
    buckets=BUCKETS,
)
HANDLED = Histogram(
    "sse_push_browser_latency_seconds",
    "Seconds from the broker's time of an event until a page's handler got the event; a sample, by pages.",
    buckets=BUCKETS,
)

_locks: list[int] = []  # the descriptor that holds the name of this process


def worker_name(folder: str | None) -> str:
    """Returns a short name for this process: the lowest number that no other worker of the machine has.

    So a worker that takes the place of another one continues its metrics, and there are never more metrics
    than workers at one time. Call it once in a process. Does not block.

    :param folder: the folder in which the workers share their metrics; None if there is one process.
    :return: a number from 0 to 63; "other" if all of these are taken.
    """
    if not folder:
        return "0"
    for number in range(MAX_NAMES):
        descriptor = os.open(Path(folder, f"worker_{number}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            _locks.append(descriptor)  # the kernel unlocks it when the process ends
            return str(number)
    return "other"
