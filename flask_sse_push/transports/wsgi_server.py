"""The only module that knows the WSGI server: finds gunicorn's worker, and notices when the worker stops.

Outside gunicorn no worker is found: `is_stopping` returns False, and the number of requests has no limit.
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

from ..hub.drain import open_streams, wait_for_streams

#: The part of a worker's threads or connections that streams may keep busy. Other requests use the rest.
STREAMS_SHARE = 0.9
#: How many file descriptors a worker needs beside its streams: for its listening socket, Redis, logs, files.
SPARE_FILES = 100


class _State:
    """The state of this process. A forked child inherits the state."""

    worker: Any = None  # gunicorn's worker object; None until it is found
    quitting = False  # whether the process got a signal to stop at once
    waits_at_exit = False  # whether `wait_for_streams` is registered with `atexit`
    frozen = False  # whether `gc.freeze` was called


# -- gunicorn's worker ---------------------------------------------------------------------------------------


def watch(worker: Any) -> None:
    """gunicorn's `post_worker_init` hook: makes a stopping worker close its streams before it ends.

    Gevent workers need no hook: `find_worker` finds them. For gthread workers, put this line into
    gunicorn.conf.py: `from flask_sse_push.transports.wsgi_server import watch as post_worker_init`.
    """
    _State.worker = worker
    if not _State.waits_at_exit:
        _State.waits_at_exit = True
        atexit.register(wait_for_streams)
    with contextlib.suppress(ValueError):  # `signal.signal` works only in the main thread
        for number in (signal.SIGINT, signal.SIGQUIT):
            previous = signal.getsignal(number)
            if callable(previous) and not isinstance(previous, _QuickStop):
                signal.signal(number, _QuickStop(previous))


def find_worker() -> Any:
    """Returns gunicorn's worker, or None. The worker is the object whose method handles SIGTERM."""
    if _State.worker is None:
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if hasattr(worker, "alive") and hasattr(worker, "cfg"):
            _State.worker = worker
    return _State.worker


def prepare() -> None:
    """Watches gunicorn's worker if there is one. Called when a process gets its first stream.

    At the first call, also exempts all existing objects from garbage collection. Streams make the collector
    run often, and with the objects of an app's modules each run would block all streams for 50 ms. Objects
    without references are still freed.
    """
    worker = find_worker()
    if worker is not None:
        watch(worker)
        if not _State.frozen:
            _State.frozen = True
            gc.freeze()


# -- the end of the process ----------------------------------------------------------------------------------


def is_stopping() -> bool:
    """Returns whether gunicorn wants this process to end.

    True after SIGTERM, SIGHUP or `max_requests` requests, and whenever `is_quitting` returns True.
    """
    return _State.quitting or (_State.worker is not None and not _State.worker.alive)


def is_quitting() -> bool:
    """Returns whether this process must end at once: True after SIGINT (Ctrl-C) or SIGQUIT."""
    return _State.quitting


class _QuickStop:
    """A handler of SIGINT and SIGQUIT that waits for the streams, then raises the signal again.

    :param previous: the handler that was set before; it is called when the streams have ended.
    """

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._previous = previous
        self._waited = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waited or not any(count() for count in open_streams):
            self._previous(number, frame)
        else:
            self._waited = True
            # Does not set `worker.alive` to False: the worker would end before the signal is raised again.
            _State.quitting = True
            # Signal handlers run in gevent's loop, which must not wait. `threading.Thread.start` would wait.
            _thread.start_new_thread(self._raise_again, (number,))

    def _raise_again(self, number: int) -> None:
        wait_for_streams()
        os.kill(os.getpid(), number)


# -- limits for the number of streams ------------------------------------------------------------------------


def worker_count() -> int:
    """Returns how many workers gunicorn runs, including this worker; 1 outside gunicorn."""
    worker = find_worker()
    return int(worker.cfg.workers) if worker else 1


def request_places() -> int | None:
    """Returns how many streams may be open if each stream keeps a thread or connection busy.

    None if there is no limit.
    """
    worker = find_worker()
    if worker is None:
        return None
    is_gthread = type(worker).__name__ == "ThreadWorker"
    places = worker.cfg.threads if is_gthread else worker.cfg.worker_connections
    return max(1, int(places * STREAMS_SHARE))


@cache
def file_places() -> int:
    """Returns how many streams fit into the limit of open files. The limit is read at the first call."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - SPARE_FILES) if soft != resource.RLIM_INFINITY else 1_000_000
