"""Makes a process wait for its open streams before it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long a process waits at most for its streams to end, in seconds. gunicorn kills a process that takes
#: longer than its `graceful_timeout`, 30 seconds.
LONGEST_WAIT = 20.0

#: Functions that return how much this process has left to do: one returns the number of open streams, another
#: the number of runs, another the number of counts not yet sent to the broker. The process waits until all
#: functions return 0.
open_streams: list[Callable[[], int]] = []

#: Functions to call when the wait is over, just before the process ends. They may be called several times.
at_exit: list[Callable[[], None]] = []


def wait_for_streams() -> None:
    """Blocks until all streams have ended, at most `LONGEST_WAIT` seconds. Then calls each of `at_exit`.

    Without this wait, the process would end while hijacked streams are open: gunicorn knows nothing of them.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for function in list(at_exit):
        function()
