"""Native threads: threads of the operating system that run beside gevent's greenlets in one process.

gevent's threadpool has such threads, and so has an executor that was made before gevent's monkey patching, or
a C library that calls back. Sockets of gevent work only in the thread that opened them. So one more thread,
the courier, has connections of its own, and native threads let it run their calls to the broker. Any number
of native threads may come and go: they open no connection and start no event loop.

In a process without gevent's monkey patching there are no native threads in this sense, and no courier.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, TypeVar

from . import forks

T = TypeVar("T")

logger = logging.getLogger(__name__)


def is_native() -> bool:
    """Whether gevent has replaced the sockets of this process, and this code runs outside its main thread.

    Also true in the courier, and in greenlets of a second event loop of gevent.
    """
    return _is_patched() and _thread_id() != _main_thread()


def runs_signal_handlers() -> bool:
    """Whether this code runs in the thread that calls the handlers of signals, in any greenlet of it."""
    if _is_patched():
        return _thread_id() == _main_thread()
    return threading.current_thread() is threading.main_thread()


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("socket")


def refuse_native() -> None:
    """Refuses a call that would start greenlets in a native thread: they would stop with the thread.

    :raises RuntimeError: if this code runs in a native thread.
    """
    if is_native():
        raise RuntimeError(
            "a native thread, such as one of gevent's threadpool, cannot start runs or the streams of this "
            "process, which belong to gevent's main thread; make this call in a view or in a greenlet. "
            "Publishing works in every thread."
        )


def lock() -> Any:
    """Returns a lock for steps that never wait for anything. Works between greenlets and native threads."""
    return _original("allocate_lock")() if "gevent.monkey" in sys.modules else threading.Lock()


def prepare() -> None:
    """Imports what gevent imports on first use: two threads that import a module at once may hang."""
    if "gevent.monkey" in sys.modules:
        from gevent import config

        _ = config.resolver, config.threadpool, config.loop  # reading a setting imports its module


def run(command: Callable[[], T], timeout: float | None = None) -> T:
    """Runs `command` and returns its result: in a native thread through the courier, else here and now.

    Blocks. A greenlet of a second event loop waits without blocking its loop.

    :param timeout: at most how many seconds a native thread waits for the courier.
    :raises TimeoutError: if the courier needs more time. The command may still run.
    :raises ConnectionAbortedError: if something ends the courier. The command may have run.
    """
    if not is_native() or is_courier():
        return command()
    from gevent import get_hub, getcurrent
    from gevent.hub import Hub

    if isinstance(getcurrent().parent, Hub):
        return get_hub().threadpool.apply(run, (command, timeout))  # type: ignore[no-any-return]
    return _courier().run(command, timeout)


def is_courier() -> bool:
    """Whether this code runs in the courier."""
    return courier_number() != 0


def courier_number() -> int:
    """Returns the number of the courier that runs this code; 0 outside the courier.

    If something ends a courier, the next courier has another number.
    """
    if not _couriers:  # the usual case, and a fast check
        return 0
    courier = _couriers.get(os.getpid())
    return courier.number if courier is not None and courier.thread_id == _thread_id() else 0


def run_in_courier(command: Callable[[], None]) -> None:
    """Lets the courier run `command` soon. Does not wait. Does nothing if this process has no courier."""
    courier = _couriers.get(os.getpid())
    if courier is not None:
        courier.spawn(command)


class _Courier:
    """A thread with an event loop of its own, which runs the commands of all native threads side by side.

    If something ends the thread, such as a `sys.exit` in one of its greenlets, another courier takes over.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self._lock = _original("allocate_lock")()  # guards the next two fields
        self._waiting: dict[int, tuple[list[Callable[[], Any]], Any]] = {}  # the callers of `run`
        self._ended = False
        self._ready = _original("allocate_lock")()
        self._ready.acquire()
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._added: Any  # a watcher of the event loop
        self.loop: Any
        self.thread_id = 0
        _original("start_new_thread")(self._serve, ())
        self._ready.acquire()

    def _serve(self) -> None:
        from gevent import get_hub

        hub, self.thread_id = get_hub(), _thread_id()
        self.loop, self._added = hub.loop, hub.loop.async_()
        self._added.start(self._spawn_added)  # while a watcher is started, the event loop does not end
        self._ready.release()
        try:
            hub.switch()
        except BaseException as error:
            self._hand_over(error)

    def _hand_over(self, error: BaseException) -> None:
        """Starts another courier, and ends the waits of all callers of `run`. The last act of the thread."""
        pid = os.getpid()
        with _locks[pid]:
            _couriers[pid] = _Courier()
        text = "the thread that serves native threads has ended by %r; another thread goes on with its work"
        _couriers[pid].spawn(logger.error, text, error)
        with self._lock:
            self._ended, waiting = True, list(self._waiting.values())
        for outcome, done in waiting:
            if not outcome:
                outcome.append(_fail_aborted)
                done.release()

    def _spawn_added(self) -> None:
        from gevent import spawn

        while self._commands:
            command, arguments = self._commands.popleft()
            spawn(command, *arguments)

    def spawn(self, command: Callable[..., None], *arguments: Any) -> None:
        """Runs `command` in a greenlet of the courier. Does not wait. Any thread may call this method."""
        # Not `loop.run_callback_threadsafe`: in gevent 24.10 it loses callbacks of threads that call at once.
        self._commands.append((command, arguments))
        self._added.send()

    def run(self, command: Callable[[], T], timeout: float | None) -> T:
        """Runs `command` in a greenlet of the courier. Blocks the calling thread, not only a greenlet."""
        outcome: list[Callable[[], T]] = []
        done = _original("allocate_lock")()
        done.acquire()
        with self._lock:
            ended = self._ended
            self._waiting[id(done)] = outcome, done
        if ended:
            return _courier().run(command, timeout)
        self.spawn(_settle, command, outcome, done)
        try:
            if not done.acquire(True, -1 if timeout is None else timeout):
                raise TimeoutError(f"the thread that serves native threads did not answer in {timeout:g} s")
        finally:
            self._waiting.pop(id(done), None)
        return outcome[0]()


def _fail_aborted() -> NoReturn:
    raise ConnectionAbortedError("something has ended the thread that serves native threads")


def _settle(command: Callable[[], T], outcome: list[Callable[[], T]], done: Any) -> None:
    """Runs `command`, then releases `done`. Adds a function to `outcome` that returns the
    result of `command` or raises its error."""
    try:
        result = command()
        outcome.append(lambda: result)
    except BaseException as error:
        failure = error  # Python deletes `error` at the end of this block

        def fail() -> T:
            raise failure

        outcome.append(fail)
    finally:
        done.release()


#: The courier of each process, by process id: a forked child has the entry of its parent, but not its thread.
_couriers: dict[int, _Courier] = {}
_locks: dict[int, Any] = {}
_numbers = itertools.count(1)


def _courier() -> _Courier:
    pid = os.getpid()
    with _locks.setdefault(pid, _original("allocate_lock")()):
        if pid not in _couriers:
            _couriers[pid] = _Courier()
        return _couriers[pid]


def _leave_loops_to_parent() -> None:
    """Called in a forked child. The epoll object of a courier belongs to the parent too."""
    for courier in _couriers.values():
        forks.silence(courier.loop.fileno())


forks.call_in_child(_leave_loops_to_parent)


@cache
def _original(name: str) -> Any:
    """Returns a function of `_thread` as it was before gevent's monkey patching."""
    from gevent.monkey import get_original

    return get_original("_thread", name)


@cache
def _main_thread() -> int:
    from gevent import hub

    return int(hub.MAIN_THREAD_IDENT)  # type: ignore[attr-defined]


def _thread_id() -> int:
    return int(_original("get_ident")())
