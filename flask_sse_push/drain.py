"""Ending streams in good order when a worker stops: a deploy cuts nothing, and clients come back spread.

gunicorn tells a worker to stop by setting `worker.alive` to False (on SIGTERM, SIGHUP and after
`max_requests`); the hub looks at it several times a second. SIGINT and SIGQUIT make gunicorn's worker exit
at once; `watch` puts the end of the streams before that.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from . import worker as gunicorn_worker
from .sink import Sink
from .wire import control, jittered_ms

logger = logging.getLogger(__name__)

#: Seconds that a process waits for its streams to end. gunicorn kills it after `graceful_timeout`, 30.
LONGEST_WAIT = 20.0


class Drain:
    """Which streams to end next. Times are monotonic seconds.

    :param window: seconds over which the streams are sent away.
    :param retry: seconds after which clients come back, on average.
    """

    def __init__(self, window: float, retry: float, stopping: Callable[[], bool]) -> None:
        self._window = window
        self._retry = retry
        self._stopping = stopping
        self._began: float | None = None
        self._total = 0

    def wanted(self) -> bool:
        """Whether the worker is to stop. Once true it stays so."""
        return self._began is not None or self._stopping()

    def due(self, sinks: Sequence[Sink], now: float) -> Sequence[Sink]:
        """The share of the open `sinks` that must go by now."""
        if not self.wanted():
            return ()
        if self._began is None:
            self._began, self._total = now, len(sinks)
            extra = {"event": "drain", "streams": self._total, "seconds": self._window}
            logger.info("sending %d streams away in %g seconds", self._total, self._window, extra=extra)
        left = 1 - (now - self._began) / self._window if self._window else 0
        return sinks[: max(0, len(sinks) - int(self._total * left))] if left > 0 else sinks

    def frame(self) -> bytes:
        """The last words to a stream that is sent away."""
        return close_frame("drain", reconnect=True, retry=self._retry)


def close_frame(reason: str, *, reconnect: bool, retry: float) -> bytes:
    """`sse.close`, with a reconnection time of its own for each client; `retry` is seconds on average."""
    retry_ms = jittered_ms(retry)
    data = {"reason": reason, "reconnect": reconnect, "retry": retry_ms}
    return control("sse.close", data, retry_ms=retry_ms)


def watch(worker: Any) -> None:
    """gunicorn's `post_worker_init` hook: lets this worker's streams end before the worker does.

    Gevent workers are found without it; put `from flask_sse_push.drain import watch as post_worker_init`
    into gunicorn.conf.py for gthread workers.
    """
    gunicorn_worker.remember(worker)
    if _wait_for_streams not in _at_exit:
        _at_exit.append(_wait_for_streams)
        atexit.register(_wait_for_streams)
    with contextlib.suppress(ValueError):  # not in the main thread, where signals are handled
        for number in (signal.SIGINT, signal.SIGQUIT):
            previous = signal.getsignal(number)
            if callable(previous) and not isinstance(previous, _QuickStop):
                signal.signal(number, _QuickStop(previous))


def find_worker() -> None:
    """Watches the gunicorn worker that runs this process, when there is one and nobody did before."""
    found = gunicorn_worker.find()
    if found is not None:
        watch(found)
        gunicorn_worker.settle()


#: Each returns how much of its kind is still to be ended in this process: streams, counts to be told.
open_streams: list[Callable[[], int]] = []


#: Called when the streams have ended, as the last of this process; maybe several times.
last_words: list[Callable[[], None]] = []


_at_exit: list[Callable[[], None]] = []


def _wait_for_streams() -> None:
    """Holds the process until its streams have ended: gunicorn knows nothing of those that were hijacked."""
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline and any(count() for count in open_streams):
        time.sleep(0.02)
    for speak in list(last_words):
        speak()


class _QuickStop:
    """A signal handler that lets streams end before it calls the one it replaced."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._previous = previous
        self._waiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waiting or not any(count() for count in open_streams):
            self._previous(number, frame)
        else:
            self._waiting = True
            # Not `worker.alive = False`: the worker would end by itself, and the signal meet its last steps.
            gunicorn_worker.leave()
            # Thread.start() would wait, which gevent's loop, where handlers run, must not.
            _thread.start_new_thread(self._raise_again, (number,))

    def _raise_again(self, number: int) -> None:
        _wait_for_streams()
        os.kill(os.getpid(), number)
