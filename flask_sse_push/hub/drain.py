"""The drain: closes the streams of a worker that stops, and makes the process wait until they are closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..protocol.frames import close_frame
from .stream import Stream

logger = logging.getLogger(__name__)

#: How long a process waits at most for its streams to end, in seconds. gunicorn kills a process that takes
#: longer than its `graceful_timeout`, 30 seconds.
LONGEST_WAIT = 20.0

#: Functions that return how much this process has left to do: one returns the number of open streams, another
#: the number of runs, another the number of counts not yet sent to the broker. The process waits until all
#: functions return 0.
open_streams: list[Callable[[], int]] = []

#: Functions to call when the wait is over, just before the process ends. They may be called several times.
at_exit: list[Callable[[], None]] = []


class Drain:
    """Closes the streams of a worker that stops, a few at a time. Times are monotonic seconds.

    :param window: seconds until all streams are closed.
    :param retry: seconds until a client connects again, on average.
    :param stopping: returns whether the worker is about to stop.
    """

    def __init__(self, window: float, retry: float, stopping: Callable[[], bool]) -> None:
        self._window = window
        self._retry = retry
        self._stopping = stopping
        self._began: float | None = None
        self._total = 0

    def has_begun(self) -> bool:
        """Whether the drain has begun or must begin, because the worker is about to stop."""
        return self._began is not None or self._stopping()

    def leaving(self, streams: Sequence[Stream], now: float) -> Sequence[Stream]:
        """Returns the streams that must be closed now. The first call begins the drain.

        :param streams: all open streams.
        """
        if self._began is None:
            self._began, self._total = now, len(streams)
            extra = {"event": "drain", "streams": self._total, "seconds": self._window}
            logger.info(
                "the worker stops; closing %d streams in %g seconds", self._total, self._window, extra=extra
            )
        left = 1 - (now - self._began) / self._window if self._window else 0
        return streams[: max(0, len(streams) - int(self._total * left))] if left > 0 else streams

    def last_frame(self, stream: Stream) -> bytes:
        """Returns the last frame of a stream. It tells the client to connect again after a random time."""
        return close_frame("drain", reconnect=True, retry=self._retry, plain=stream.plain)


def wait_for_streams() -> None:
    """Waits at most `LONGEST_WAIT` seconds until all streams have ended, then calls the `at_exit` functions.

    Without this wait, the process would end while hijacked streams are open, because gunicorn does not know
    that they exist.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for function in list(at_exit):
        function()
