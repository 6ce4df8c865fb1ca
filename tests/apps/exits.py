"""The plain app, with a handler of SIGTERM that replaces gunicorn's. `EXIT` names the handler."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import gevent

from .plain import app

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGWINCH,
    signal.SIGABRT,
)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def chain(number: signal.Signals, seconds: float = 0.0) -> None:
    """Sets a handler that calls the handler before it, after some time."""
    previous: Any = signal.getsignal(number)

    def call_previous() -> None:
        time.sleep(seconds)
        previous(number, None)

    def handle(number: int, frame: FrameType | None) -> None:
        if seconds:
            _thread.start_new_thread(call_previous, ())
        else:
            previous(number, frame)

    signal.signal(number, handle)


def chain_all() -> None:
    for number in SIGNALS:
        chain(number)


def exit_in_greenlet(number: int, frame: FrameType | None) -> None:
    gevent.spawn(sys.exit, 0)


def handle_in_greenlet() -> None:
    gevent.signal_handler(signal.SIGTERM, sys.exit)


HANDLERS = {
    "sys.exit": lambda: signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0)),
    "KeyboardInterrupt": lambda: signal.signal(signal.SIGTERM, interrupt),
    "chained": lambda: chain(signal.SIGTERM),
    "chained, later": lambda: chain(signal.SIGTERM, 0.5),
    "all signals chained": chain_all,
    "gevent.signal_handler": handle_in_greenlet,
    "a greenlet that exits": lambda: signal.signal(signal.SIGTERM, exit_in_greenlet),
}


def set_handler() -> str:
    HANDLERS[os.environ["EXIT"]]()  # type: ignore[no-untyped-call]
    return "set"


if "SET_LATER" in os.environ:
    app.add_url_rule("/set", view_func=set_handler)
else:
    set_handler()
