"""The one place that knows the WSGI server: gunicorn's worker, and how a process waits for its streams.

Outside gunicorn no worker is found: nothing is ever stopping, and the number of requests has no limit.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from ..hub.shutdown import open_streams, wait_for_streams

#: Share of a worker's places for requests that streams may take. The rest is for pages.
STREAMS_SHARE = 0.9
#: Descriptors that a worker needs beside its streams: listener, Redis, logs, files of pages.
SPARE_FILES = 100


class _State:
    """What this process has found out or done. A forked child inherits it."""

    worker: Any = None  # gunicorn's
    quitting = False  # whether a signal to stop at once has come
    waits_at_exit = False  # whether `wait_for_streams` is registered
    frozen = False  # whether the garbage collector spares what was loaded


# -- gunicorn's worker ---------------------------------------------------------------------------------------


def watch(worker: Any) -> None:
    """gunicorn's `post_worker_init` hook: makes a stopping worker close its streams before it ends.

    Gevent workers are found without it. For gthread workers put this into gunicorn.conf.py:
    `from flask_sse_push.transports.server import watch as post_worker_init`.
    """
    _State.worker = worker
    if not _State.waits_at_exit:
        _State.waits_at_exit = True
        atexit.register(wait_for_streams)
    with contextlib.suppress(ValueError):  # not in the main thread, where signals are handled
        for number in (signal.SIGINT, signal.SIGQUIT):
            previous = signal.getsignal(number)
            if callable(previous) and not isinstance(previous, _QuickStop):
                signal.signal(number, _QuickStop(previous))


def find_worker() -> Any:
    """Returns gunicorn's worker, or None. Its handler of SIGTERM is a method of the worker."""
    if _State.worker is None:
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if hasattr(worker, "alive") and hasattr(worker, "cfg"):
            _State.worker = worker
    return _State.worker


def prepare() -> None:
    """Watches gunicorn's worker if there is one. Called when a process gets its first stream.

    It also exempts all objects that exist by now from garbage collection, once. Streams make the collector
    run again and again. With the modules of an app among its objects a run takes 50 ms, in which no stream
    is served. Objects without references are still freed.
    """
    worker = find_worker()
    if worker is not None:
        watch(worker)
        if not _State.frozen:
            _State.frozen = True
            gc.freeze()


# -- whether the process stops -------------------------------------------------------------------------------


def is_stopping() -> bool:
    """Returns whether gunicorn wants this process to end: on SIGTERM, SIGHUP and after `max_requests`, and
    in the cases of `is_quitting`."""
    return _State.quitting or (_State.worker is not None and not _State.worker.alive)


def is_quitting() -> bool:
    """Returns whether this process must end at once: on SIGINT (Ctrl-C) and SIGQUIT."""
    return _State.quitting


class _QuickStop:
    """A handler of SIGINT and SIGQUIT that waits for the streams, then raises the signal again.

    :param previous: the handler it replaces, which gets the signal when the streams have ended.
    """

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._previous = previous
        self._waited = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waited or not any(count() for count in open_streams):
            self._previous(number, frame)
        else:
            self._waited = True
            # Not `worker.alive = False`: the worker would end before the signal is raised again.
            _State.quitting = True
            # Handlers run in gevent's loop, which must not wait; `threading.Thread.start` would wait.
            _thread.start_new_thread(self._raise_again, (number,))

    def _raise_again(self, number: int) -> None:
        wait_for_streams()
        os.kill(os.getpid(), number)


# -- how many streams it can hold ----------------------------------------------------------------------------


def worker_count() -> int:
    """Returns how many workers gunicorn runs, this one included; 1 outside gunicorn."""
    worker = find_worker()
    return int(worker.cfg.workers) if worker else 1


def request_places() -> int | None:
    """Returns how many streams may each hold a place for a request; None if the number has no limit."""
    worker = find_worker()
    if worker is None:
        return None
    is_gthread = type(worker).__name__ == "ThreadWorker"
    places = worker.cfg.threads if is_gthread else worker.cfg.worker_connections
    return max(1, int(places * STREAMS_SHARE))


@cache
def file_places() -> int:
    """Returns how many streams the limit of open files leaves room for, as it was at the first call."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - SPARE_FILES) if soft != resource.RLIM_INFINITY else 1_000_000
