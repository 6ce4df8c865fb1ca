"""The drain: closes the streams of a worker that stops, and makes the process wait until they are closed."""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from ..brokers import forks
from .stream import Stream

logger = logging.getLogger(__name__)

#: At most how many seconds a process that ends waits for its runs. It waits as long for its streams, or
#: longer if SSE_PUSH_DRAIN is larger.
LONGEST_WAIT = 20.0
#: At most how many seconds a client may take to read its last frame. Then the worker cuts the connection.
LAST_READ = 2.0
#: Seconds that a process keeps for its other work between the end of its streams and the kill by its server.
RESERVE = 2.0

#: Functions that return how much this process has left to do: one returns the number of open streams, another
#: the number of runs, another the number of counts not yet sent to the broker. The process waits until all
#: functions return 0.
open_streams: list[Callable[[], int]] = []

#: Functions to call when the wait is over, just before the process ends. They may be called several times.
at_exit: list[Callable[[], None]] = []


class _Process:
    """The state of this process. A forked child begins with the values below."""

    watched = False  # whether `watch_exit` was called
    exiting = False  # whether the interpreter has begun to end
    killed_after = math.inf  # seconds after which the server kills a process that it has told to stop
    longest_drain = 0.0  # seconds; the largest SSE_PUSH_DRAIN of this process


class Drain:
    """Closes the streams of a worker that stops, a few at a time. Times are monotonic seconds.

    :param window: seconds until all streams are closed; fewer if the server would kill the process before.
    :param stopping: returns whether the worker is about to stop.
    """

    def __init__(self, window: float, stopping: Callable[[], bool]) -> None:
        self._window = window
        self._stopping = stopping
        self._began: float | None = None
        self._total = 0
        _Process.longest_drain = max(_Process.longest_drain, window)

    def has_begun(self) -> bool:
        """Whether the drain has begun or must begin, because the worker is about to stop."""
        return self._began is not None or self._stopping()

    def is_over(self, now: float) -> bool:
        """Whether every client has had the time to read its last frame."""
        return self._began is not None and now > self._began + self._window + LAST_READ

    def leaving(self, streams: Sequence[Stream], now: float) -> Sequence[Stream]:
        """Returns the streams that must be closed now. The first call begins the drain.

        :param streams: all open streams.
        """
        if self._began is None:
            self._began, self._total = now, len(streams)
            self._window = min(self._window, time_to_stop())
            extra = {"event": "drain", "streams": self._total, "seconds": self._window}
            logger.info(
                "the worker stops; closing %d streams in %g seconds", self._total, self._window, extra=extra
            )
        left = 1 - (now - self._began) / self._window if self._window else 0
        return streams[: max(0, len(streams) - int(self._total * left))] if left > 0 else streams


# -- the end of the process ----------------------------------------------------------------------------------


def watch_exit(killed_after: float = math.inf) -> None:
    """Makes this process close its streams before it ends, whatever ends it: `sys.exit`, Ctrl-C, a signal.

    Python does not notice SIGKILL, `os._exit` and a signal without a handler: each ends the process at once.

    :param killed_after: how many seconds after the order to stop the server kills a process.
    """
    _Process.killed_after = min(_Process.killed_after, killed_after)
    if _Process.watched:
        return
    _Process.watched = True
    atexit.register(wait_for_streams)
    # The interpreter calls the functions of `atexit` only when all threads of thread pools have ended. But a
    # thread that serves a stream ends after the drain. So the drain must begin before.
    try:
        threading._register_atexit(_begin_exit)  # type: ignore[attr-defined]
    except RuntimeError:  # the interpreter has already begun to end
        _begin_exit()


def is_exiting() -> bool:
    """Returns whether the interpreter of this process has begun to end."""
    return _Process.exiting


def time_to_stop() -> float:
    """Returns how many seconds a stopping process has to close its streams before the server kills it."""
    return max(0.0, _Process.killed_after - RESERVE)


def _begin_exit() -> None:
    _Process.exiting = _Process.watched  # a forked child has inherited this function, but not the streams


def wait_for_streams() -> None:
    """Waits until all streams and runs of a process that ends have ended, then calls the `at_exit` functions.

    Without this wait, the process would end while hijacked streams are open, because gunicorn does not know
    that they exist.
    """
    _begin_exit()
    longest = max(LONGEST_WAIT, _Process.longest_drain + LAST_READ)
    deadline = time.monotonic() + min(longest, time_to_stop())
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for function in list(at_exit):
        function()


def _forget_parents_streams() -> None:
    """Called in a forked child: the streams, the runs and the exit of its parent do not concern the child."""
    _Process.watched = _Process.exiting = False
    open_streams.clear()
    at_exit.clear()


forks.call_in_child(_forget_parents_streams)
