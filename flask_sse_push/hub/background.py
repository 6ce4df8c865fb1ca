"""The threads of this package. If something ends a thread before its work is done, another thread goes on.

On a gevent worker each thread is a greenlet. An app can end a greenlet that it does not own: by
`gevent.killall`, by a `gevent.Timeout` in its code, by `sys.exit` in a signal handler. Streams would then
get no more events, and no log line would say so. So a new thread takes over, and `/health` is CRITICAL until
it runs.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CodeType, TracebackType

from ..brokers import forks, native_threads
from . import tallies

logger = logging.getLogger(__name__)

#: A thread that ends within this many seconds of its start is started again after a pause.
STABLE = 10.0
#: The first and the longest pause before a thread is started again, in seconds. Each pause is twice the last.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

_threads: set[_Thread] = set()  # those whose work is not done
_own: set[int] = set()  # the identifiers of the threads that run now


def start(name: str, body: Callable[[], None], *, repeat: bool = True) -> None:
    """Starts a daemon thread that calls `body`. On a gevent worker, the thread is a greenlet.

    :param name: the end of the thread's name.
    :param repeat: whether another thread calls `body` again if `body` ends without returning.
    """
    _Thread(name, body, repeat).start()


def start_all(bodies: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Starts a thread for each pair of a name and a body, also if the caller is interrupted meanwhile.

    :raises BaseException: what interrupted the caller, such as a `gevent.Timeout`, when all threads run.
    """
    with contextlib.ExitStack() as starts:
        for name, body in bodies:
            starts.callback(start, name, body)


def is_own() -> bool:
    """Whether this code runs in a thread that `start` has started."""
    return threading.get_ident() in _own


def ended() -> list[str]:
    """Returns the names of the threads that have ended before their work was done, and do not run again yet.

    If nothing has started such a thread again, this call starts it.
    """
    return sorted(thread.name for thread in list(_threads) if not thread.is_running())


class _Thread:
    """The work of one thread, which several threads do one after another if something ends them."""

    def __init__(self, name: str, body: Callable[[], None], repeat: bool) -> None:
        self.name = name
        self._body = body
        self._repeat = repeat
        self._pause = 0.0  # seconds to wait before the body is called
        self._works = True  # False from the end of a thread until the next one calls the body
        self._thread: threading.Thread

    def start(self) -> None:
        """Starts a thread that does the work. Switches to other greenlets."""
        _threads.add(self)
        self._thread = threading.Thread(target=self._run, name=f"flask-sse-push-{self.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no room for another thread
            if not self._repeat:
                _threads.discard(self)
            raise

    def is_running(self) -> bool:
        """Whether a thread does the work now. Starts one if none is left."""
        running = self._thread.is_alive()
        if not running and self in _threads:
            self.start()
        return running and self._works

    @forks.stays_in_parent
    def _run(self) -> None:
        if self not in _threads:  # this is a forked child, and its parent has started the thread
            return
        again, ident = self._repeat, threading.get_ident()
        _own.add(ident)
        try:
            if self._pause:
                time.sleep(self._pause)
            began, self._works = time.monotonic(), True
            try:
                self._body()
                again = False
            except BaseException as error:
                self._works = False
                lasted = time.monotonic() - began
                self._pause = 0.0 if lasted > STABLE else min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
                self._note_end(error)
        finally:
            _own.discard(ident)
            if again and self in _threads:
                self._start_again()
            else:
                _threads.discard(self)

    def _start_again(self) -> None:
        while True:
            try:
                self.start()
                return
            except RuntimeError:
                time.sleep(LONGEST_PAUSE)

    def _note_end(self, error: BaseException) -> None:
        """Logs why the thread ends, or passes the exit of the process on to the main greenlet.

        gevent calls the handler of a signal in whatever greenlet runs at that moment. If the handler of an
        app calls `sys.exit`, the exit is raised here. A thread would swallow it, and the process would live
        on.
        """
        if ends_process(error):
            # gevent raises the error of such a thread in the main greenlet. `threading` would swallow it.
            _thread.start_new_thread(_raise, (error,))
            return
        tallies.add("thread_ends", self.name)
        again = "another thread goes on with its work" if self._repeat else "its work is not done"
        logger.error("the thread %s has ended by %r; %s", self.name, error, again, exc_info=error)


def _raise(error: BaseException) -> None:
    raise error


# -- exits of the process ------------------------------------------------------------------------------------


def ends_process(error: BaseException) -> bool:
    """Whether `error` asks the process to end: the handler of a signal has raised it.

    An exit that other code raises, such as a `sys.exit` in a rule of the app, ends nothing but this code.
    """
    is_exit = isinstance(error, (SystemExit, KeyboardInterrupt))
    if not is_exit or not native_threads.runs_signal_handlers():
        return False
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    if isinstance(error, KeyboardInterrupt) and signal.default_int_handler in handlers:
        return True  # this handler leaves no trace in the error
    codes = {code for handler in handlers if callable(handler) for code in _codes(handler)}
    return any(code in codes for code in _raised_in(error.__traceback__))


def _codes(handler: object) -> Iterator[CodeType]:
    """Yields the code that runs when a handler is called."""
    while isinstance(handler, partial):
        handler = handler.func
    for function in (handler, vars(type(handler)).get("__call__")):
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            yield code


def _raised_in(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next


def _forget_parents_threads() -> None:
    _threads.clear()
    _own.clear()


forks.call_in_child(_forget_parents_threads)
