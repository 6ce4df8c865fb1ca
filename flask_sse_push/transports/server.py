"""What is known of the gunicorn worker that runs this process, when there is one."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from ..hub.shutdown import open_streams, wait_for_streams

#: Share of a worker's places for requests that streams may take: the rest is for pages.
SHARE = 0.9
#: Descriptors a worker needs beside its streams: listener, Redis, logs, files of pages.
SPARE_FILES = 100

#: The number of this process: asked of the kernel each time, it would cost a handshake 2 µs.
pid = os.getpid()

_found: list[Any] = []
_leaving: list[bool] = []
_settled: list[bool] = []


def _note_fork() -> None:
    global pid
    pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


def remember(worker: Any) -> None:
    """Takes `worker` for the one that runs this process."""
    _found[:] = [worker]


def settle() -> None:
    """Spares what is loaded by now from the garbage collector, once.

    Streams make it look at everything again and again; with the modules of an app in it a look takes 50 ms,
    in which no stream is served. What is freed by its last reference, as nearly all is, still is.
    """
    if not _settled:
        _settled.append(True)
        gc.freeze()


def find() -> Any:
    """The gunicorn worker, or None. gunicorn's handler of SIGTERM is the worker's bound method."""
    if not _found:
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if hasattr(worker, "alive") and hasattr(worker, "cfg"):
            _found.append(worker)
    return _found[0] if _found else None


def stops() -> bool:
    """Whether gunicorn wants this process to end: on SIGTERM, SIGHUP and after `max_requests`."""
    return bool(_leaving) or (bool(_found) and not _found[0].alive)


def quits() -> bool:
    """Whether it is to end at once: on SIGINT (Ctrl-C) and SIGQUIT."""
    return bool(_leaving)


def leave() -> None:
    """Notes that this process is about to end, before gunicorn's worker knows it."""
    _leaving.append(True)


def count() -> int:
    """How many workers gunicorn runs, this one included; 1 outside gunicorn."""
    worker = find()
    return int(worker.cfg.workers) if worker else 1


def request_places() -> int | None:
    """Streams that may each hold a place for a request; None where that is not bounded."""
    worker = find()
    if worker is None:
        return None
    gthread = type(worker).__name__ == "ThreadWorker"
    places = worker.cfg.threads if gthread else worker.cfg.worker_connections
    return max(1, int(places * SHARE))


@cache
def file_places() -> int:
    """Streams that the limit of open files leaves room for, as it was at the first call."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - SPARE_FILES) if soft != resource.RLIM_INFINITY else 1_000_000


logger = logging.getLogger(__name__)


def watch(worker: Any) -> None:
    """gunicorn's `post_worker_init` hook: lets this worker's streams end before the worker does.

    Gevent workers are found without it; for gthread workers put this into gunicorn.conf.py:
    `from flask_sse_push.transports.server import watch as post_worker_init`.
    """
    remember(worker)
    if wait_for_streams not in _at_exit:
        _at_exit.append(wait_for_streams)
        atexit.register(wait_for_streams)
    with contextlib.suppress(ValueError):  # not in the main thread, where signals are handled
        for number in (signal.SIGINT, signal.SIGQUIT):
            previous = signal.getsignal(number)
            if callable(previous) and not isinstance(previous, _QuickStop):
                signal.signal(number, _QuickStop(previous))


def find_worker() -> None:
    """Watches the gunicorn worker that runs this process, when there is one and nobody did before."""
    found = find()
    if found is not None:
        watch(found)
        settle()


_at_exit: list[Callable[[], None]] = []


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
            leave()
            # Thread.start() would wait, which gevent's loop, where handlers run, must not.
            _thread.start_new_thread(self._raise_again, (number,))

    def _raise_again(self, number: int) -> None:
        wait_for_streams()
        os.kill(os.getpid(), number)
