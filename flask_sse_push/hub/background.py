"""Starts the threads of this package. A `sys.exit` in one of them ends the process, not the thread."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


def start(name: str, body: Callable[[], None], *, repeat: bool = True) -> None:
    """Starts a daemon thread that calls `body`. On a gevent worker, the thread is a greenlet.

    :param name: the end of the thread's name.
    :param repeat: whether the thread calls `body` again if an exit of the process has interrupted it. The
        process needs the thread until its streams are closed.
    """
    name = f"flask-sse-push-{name}"
    threading.Thread(target=_run, args=(body, repeat), name=name, daemon=True).start()


def _run(body: Callable[[], None], repeat: bool) -> None:
    """Calls `body`. Passes an exit of the process on to the main greenlet.

    gevent calls the handler of a signal in whatever greenlet runs at that moment. If the handler of an app
    calls `sys.exit`, the exit is raised here. A thread would swallow the exit, and the process would live on.
    """
    wanted = True
    while wanted:
        try:
            body()
            return
        except (SystemExit, KeyboardInterrupt) as error:
            # gevent raises the error of such a thread in the main greenlet. `threading` would swallow it.
            _thread.start_new_thread(_raise, (error,))
            wanted = repeat


def _raise(error: BaseException) -> None:
    raise error
