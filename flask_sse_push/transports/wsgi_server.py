"""Finds gunicorn's worker, notices when the process stops, and knows how many streams the process can have.

Outside gunicorn no worker is found. The process then stops when its Python interpreter begins to end, and the
number of requests has no limit.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from types import FrameType
from typing import Any

from ..brokers import forks
from ..hub.drain import is_exiting, watch_exit

#: The part of a worker's threads or connections that streams may keep busy. Other requests use the rest.
STREAMS_SHARE = 0.9
#: How many file descriptors a worker needs beside its streams: for its listening socket, Redis, logs, files.
SPARE_FILES = 100


class _State:
    """The state of this process. A forked child inherits the state."""

    worker: Any = None  # gunicorn's worker object; None until it is found
    quitting = False  # whether the process got a signal to stop at once
    frozen = False  # whether `gc.freeze` was called


# -- gunicorn's worker ---------------------------------------------------------------------------------------


def watch(worker: Any) -> None:
    """gunicorn's `post_worker_init` hook: makes the runs of a worker end at once on SIGINT and SIGQUIT.

    Gevent workers need no hook: `find_worker` finds them. For gthread workers, put this line into
    gunicorn.conf.py: `from flask_sse_push.transports.wsgi_server import watch as post_worker_init`.
    """
    _State.worker = worker
    watch_exit(_killed_after(worker.cfg))
    with contextlib.suppress(ValueError):  # `signal.signal` works only in the main thread
        for number in (signal.SIGINT, signal.SIGQUIT):
            previous = signal.getsignal(number)
            if callable(previous) and not isinstance(previous, _QuickStop):
                signal.signal(number, _QuickStop(previous))


def _killed_after(cfg: Any) -> float:
    """Returns how many seconds after the order to stop gunicorn kills a worker.

    gunicorn also kills a worker that sends no sign of life for `timeout` seconds. A worker that waits only
    for its hijacked streams sends none.
    """
    return float(min(cfg.graceful_timeout, cfg.timeout or math.inf))


def find_worker() -> Any:
    """Returns gunicorn's worker object, or None.

    gunicorn has no public way to get the object, so two places are searched. The worker's methods handle six
    signals. An app that replaces the handler of one signal, usually SIGTERM, leaves the others. And while a
    request is served, a method of the worker is on the call stack, unless a middleware calls the app in
    another thread.
    """
    if _State.worker is None or _State.worker.pid != os.getpid():  # a forked child has inherited the object
        _State.worker = _worker_of(os.getpid())
    return _State.worker


def _worker_of(pid: int) -> Any:
    candidates = [*_objects_that_handle_signals(), *_callers()]
    return next((each for each in candidates if _is_worker(each, pid)), None)


def _objects_that_handle_signals() -> Iterator[Any]:
    for number in signal.valid_signals():
        yield getattr(signal.getsignal(number), "__self__", None)


def _callers() -> Iterator[Any]:
    """Yields the object of each method of gunicorn on the call stack, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # Reading `f_locals` keeps copies of a function's variables, so the app's functions are left alone.
        if frame.f_globals.get("__name__", "").startswith("gunicorn."):
            yield frame.f_locals.get("self")
        frame = frame.f_back


def _is_worker(candidate: Any, pid: int) -> bool:
    """Whether an object is the gunicorn worker of a process: gunicorn stores the process id in it."""
    fields = vars(candidate) if hasattr(candidate, "__dict__") else {}
    return fields.get("pid") == pid and {"alive", "cfg", "wsgi"} <= fields.keys()


def _stop_accepting() -> None:
    """Called in a forked child of a worker: leaves all new connections to the worker.

    gevent would accept connections in the child too, and their clients would be cut off when the child ends.
    """
    worker = _worker_of(os.getppid())
    if worker is None:
        return
    # gevent watches the descriptor, and may be about to accept a connection. So a listening socket to which
    # nobody can connect takes its place.
    with _silent_socket() as silent:
        for listening in worker.sockets:
            os.dup2(silent.fileno(), listening.fileno(), inheritable=False)


def _silent_socket() -> socket.socket:
    """Returns a listening socket that never blocks and never gets a connection: its address is gone."""
    silent = socket.socket(socket.AF_UNIX)
    silent.setblocking(False)
    with tempfile.TemporaryDirectory() as folder:
        silent.bind(os.path.join(folder, "silent"))
        silent.listen(1)
    return silent


forks.call_in_child(_stop_accepting)


def prepare() -> None:
    """Watches for the end of this process. Called when a process gets its first stream.

    In a worker of gunicorn, the first call also exempts all existing objects from garbage collection. Streams
    make the collector run often, and with the objects of an app's modules each run would block all streams
    for 50 ms. Objects without references are still freed.
    """
    watch_exit()
    worker = find_worker()
    if worker is not None:
        watch(worker)
        if not _State.frozen:
            _State.frozen = True
            gc.freeze()


# -- the end of the process ----------------------------------------------------------------------------------


def is_stopping() -> bool:
    """Returns whether this process ends soon.

    True after SIGTERM, SIGHUP or `max_requests` requests of gunicorn, after `sys.exit` and Ctrl-C on every
    server, and whenever `is_quitting` returns True.
    """
    return _was_told_to_stop() or is_quitting()


def is_quitting() -> bool:
    """Returns whether this process must end at once.

    True after SIGINT (Ctrl-C) or SIGQUIT, and if the process ends though gunicorn did not tell it to stop.
    """
    return _State.quitting or (is_exiting() and not _was_told_to_stop())


def _was_told_to_stop() -> bool:
    """Whether gunicorn told this worker to stop. The worker then has time for its runs."""
    worker = _State.worker
    return worker is not None and worker.pid == os.getpid() and not worker.alive


class _QuickStop:
    """A handler of SIGINT and SIGQUIT: notes the signal, then calls the handler that was set before."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _State.quitting = True
        self._previous(number, frame)


def configuration() -> dict[str, Any] | None:
    """Returns the part of gunicorn's configuration that streams depend on; None outside gunicorn.

    `files` is how many files this process may have open.
    """
    worker = find_worker()
    if worker is None:
        return None
    cfg = worker.cfg
    return {
        "worker_class": cfg.worker_class_str if isinstance(cfg.worker_class_str, str) else "",
        "workers": cfg.workers,
        "threads": cfg.threads,
        "connections": cfg.worker_connections,
        "graceful_timeout": cfg.graceful_timeout,
        "tls": bool(cfg.is_ssl),
        "files": _file_limit() or 10**9,
        "fast_parser": _has_fast_parser(cfg),
    }


def _has_fast_parser(cfg: Any) -> bool:
    """Whether gunicorn parses requests with gunicorn_h1c, which is written in C.

    gunicorn has the setting `http_parser` since version 25. With `auto`, the default, gunicorn uses
    gunicorn_h1c if that is installed.
    """
    wanted = getattr(cfg, "http_parser", "python") != "python"
    return wanted and importlib.util.find_spec("gunicorn_h1c") is not None


# -- limits for the number of streams ------------------------------------------------------------------------


def worker_count() -> int:
    """Returns how many workers gunicorn runs, including this worker; 1 outside gunicorn."""
    worker = find_worker()
    return int(worker.cfg.workers) if worker else 1


def connection_count() -> int | None:
    """Returns how many connections this worker of gunicorn serves at the same time; None outside gunicorn."""
    worker = find_worker()
    return int(worker.cfg.worker_connections) if worker else None


def request_places() -> int | None:
    """Returns how many streams may be open if each stream keeps a thread or connection busy.

    None if there is no limit.
    """
    places = thread_count() or connection_count()
    return max(1, int(places * STREAMS_SHARE)) if places else None


def thread_count() -> int | None:
    """Returns how many threads serve the requests of this gthread worker; None on any other server."""
    worker = find_worker()
    is_gthread = any(base.__name__ == "ThreadWorker" for base in type(worker).__mro__)
    return int(worker.cfg.threads) if is_gthread else None


@cache
def file_places() -> int:
    """Returns how many streams fit into the limit of open files. The limit is read at the first call."""
    limit = _file_limit()
    return 1_000_000 if limit is None else max(1, limit - SPARE_FILES)


def _file_limit() -> int | None:
    """Returns how many files this process may have open; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
