"""What a process waits for before it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds that a process waits for its streams to end. gunicorn kills it after `graceful_timeout`, 30.
LONGEST_WAIT = 20.0


#: Each returns how much of its kind is still to be ended in this process: streams, counts to be told.
open_streams: list[Callable[[], int]] = []


#: Called when the streams have ended, as the last of this process; maybe several times.
at_exit: list[Callable[[], None]] = []


def wait_for_streams() -> None:
    """Holds the process until its streams have ended: gunicorn knows nothing of those that were hijacked."""
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for speak in list(at_exit):
        speak()
