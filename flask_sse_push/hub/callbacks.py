"""Calls callbacks: functions of the app, such as rules, loaders of users, receivers of signals, producers.

A callback may raise anything, also errors that are no `Exception`: `gevent.Timeout`, `SystemExit`,
`GreenletExit`. Such an error must not end a thread of this package.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from functools import partial

from . import background, tallies

logger = logging.getLogger(__name__)

#: After a failure of a callback was logged, its further failures are only counted for this many seconds.
QUIET = 60.0
#: At most how many callbacks are remembered, to log each of them once in QUIET seconds.
MAX_REMEMBERED = 1000


class CallbackFailed(Exception):
    """A callback has raised an error. The attribute `__cause__` is the error, which may be no Exception."""

    def __init__(self, kind: str, name: str, error: BaseException) -> None:
        super().__init__(f"{kind} {name} raised {type(error).__name__}")
        self.error = error


@contextlib.contextmanager
def calling(kind: str, callback: object, *, whatever: bool = False) -> Iterator[None]:
    """A context manager: its block calls a callback. Counts and logs an error that the block raises.

    In a thread of this package every error is the callback's. In other threads, an error that is no Exception
    may come from outside: the app may have put a `gevent.Timeout` around its call of this package. So such an
    error passes unchanged.

    :param kind: what the app registered the callback for, such as `authorize`. Also the label of the metric.
    :param callback: the function of the app. The log shows its name.
    :param whatever: whether every error is the callback's, also in other threads.
    :raises CallbackFailed: if the block raises an error.
    """
    try:
        yield
    except CallbackFailed:  # of a callback within this one, and already counted
        raise
    except BaseException as error:
        own = isinstance(error, Exception) or whatever or background.is_own()
        if not own or background.ends_process(error):
            raise
        name = name_of(callback)
        tallies.add("callback_errors", kind)
        with contextlib.suppress(BaseException if background.is_own() else Exception):
            _log(kind, name, error)  # the app's log handlers may raise errors too
        raise CallbackFailed(kind, name, error) from error


def name_of(callback: object) -> str:
    """Returns the full name of a function of the app, such as `shop.rules.may_listen`."""
    while isinstance(callback, partial):
        first = callback.args[0] if callback.args else None
        callback = first if callable(first) else callback.func
    named = callback if hasattr(callback, "__qualname__") else type(callback)
    module = getattr(named, "__module__", None)  # a generator has none
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


_logged: dict[tuple[str, str], tuple[float, int]] = {}  # the monotonic time of the log line, failures since


def _log(kind: str, name: str, error: BaseException) -> None:
    """Logs the failure with its traceback, unless the callback's last log line is younger than QUIET."""
    now, key = time.monotonic(), (kind, name)
    at, since = _logged.get(key, (-QUIET, 0))
    if now - at < QUIET:
        _logged[key] = at, since + 1
        return
    if len(_logged) >= MAX_REMEMBERED:
        _logged.clear()
    _logged[key] = now, 0
    more = f" ({since} more failures since the last of these lines)" if since else ""
    extra = {"event": "callback_failed", "kind": kind, "callback": name}
    logger.error("the app's %s %s raised %r%s", kind, name, error, more, exc_info=error, extra=extra)
