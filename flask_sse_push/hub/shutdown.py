"""What a process waits for before it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds that a process waits for its streams to end. gunicorn kills it after `graceful_timeout`, 30.
LONGEST_WAIT = 20.0

#: Functions that each return how many things of one kind are unfinished in this process: streams, runs,
#: counts that the broker has not got. The process waits until all return 0.
open_streams: list[Callable[[], int]] = []

#: Functions to call once the wait is over, as the last act of this process. They may be called several times.
at_exit: list[Callable[[], None]] = []


def wait_for_streams() -> None:
    """Blocks until the streams have ended, at most `LONGEST_WAIT` seconds, then calls `at_exit`.

    Needed because gunicorn knows nothing of hijacked streams.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for function in list(at_exit):
        function()
