"""Calls the receivers of signals: functions of the app, which may raise anything and take long.

Each receiver of each signal has a queue of its own, and a thread while calls wait in the queue. So a receiver
holds up neither streams nor publishers nor other receivers.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from blinker import NamedSignal
from flask import Flask

from ..brokers import forks, native_threads
from ..hub import background, tallies
from ..hub.callbacks import CallbackFailed, calling, name_of
from ..hub.drain import at_exit, watch_exit

logger = logging.getLogger(__name__)

#: At most this many calls of one receiver wait. Further calls are left out.
MAX_WAITING = 10_000
#: At most how many seconds a process that ends waits for the calls that are left.
LAST_CALLS = 2.0


class _Receiver(NamedTuple):
    """One function that an app has connected to one signal."""

    app: Flask
    signal: str
    function: Callable[..., Any]


_waiting: dict[
    _Receiver, deque[dict[str, Any]]
] = {}  # the arguments of the calls; only with calls or a thread
_lock = native_threads.lock()


def send(app: Flask, signal: NamedSignal, **facts: Any) -> None:
    """Queues a call of each receiver that is connected to the signal. Never raises an error of a receiver.

    Does not block. Only a native thread of a gevent process, which can start no greenlet, makes the calls
    itself.

    :param app: the sender of the signal.
    :param facts: the arguments that the receivers get besides the app.
    """
    if signal.is_muted:
        return
    for function in signal.receivers_for(app):
        receiver = _Receiver(app, signal.name, function)
        if native_threads.is_native():
            _call(receiver, facts, whatever=True)
        elif not _enqueue(receiver, facts):
            tallies.add("callbacks_dropped", signal.name)


def _enqueue(receiver: _Receiver, facts: dict[str, Any]) -> bool:
    """Adds a call to the receiver's queue. Returns False if the queue is full, or if no thread can start."""
    with _lock:
        calls = _waiting.get(receiver)
        if calls is not None:
            has_room = len(calls) < MAX_WAITING
            if has_room:
                calls.append(facts)
        else:
            _waiting[receiver] = deque((facts,))
    if calls is None:
        return _start(receiver)
    if not has_room:
        _warn(receiver)
    return has_room


def _start(receiver: _Receiver) -> bool:
    watch_exit()
    if _finish not in at_exit:
        at_exit.append(_finish)
    try:
        background.start("receiver", partial(_call_all, receiver))
    except RuntimeError as error:
        logger.error("the receiver %s cannot be called: %s", name_of(receiver.function), error)
        with _lock:
            _waiting.pop(receiver, None)
        return False
    return True


def _call_all(receiver: _Receiver) -> None:
    """Makes the waiting calls of one receiver, one after another. The body of the receiver's thread."""
    while True:
        with _lock:
            calls = _waiting[receiver]
            if not calls:
                del _waiting[receiver]
                _warned.discard(receiver)
                return
            facts = calls.popleft()
        _call(receiver, facts)


def _call(receiver: _Receiver, facts: dict[str, Any], *, whatever: bool = False) -> None:
    app, signal, function = receiver
    with (
        contextlib.suppress(CallbackFailed),
        calling(signal, function, whatever=whatever),
        app.app_context(),
    ):
        app.ensure_sync(function)(app, **facts)


_warned: set[_Receiver] = set()  # those whose queue is full, so that the log says it once


def _warn(receiver: _Receiver) -> None:
    if receiver not in _warned:
        _warned.add(receiver)
        logger.error(
            "the receiver %s of the signal %s is too slow: %d calls wait, so further calls are left out",
            name_of(receiver.function), receiver.signal, MAX_WAITING,
            extra={"event": "callbacks_dropped", "kind": receiver.signal},
        )  # fmt: skip


def _finish() -> None:
    """Waits until all calls are made, at most LAST_CALLS seconds. Called when the process ends."""
    deadline = time.monotonic() + LAST_CALLS
    while _waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    for receiver, calls in list(_waiting.items()):
        name, left = name_of(receiver.function), len(calls) + 1
        logger.warning("the process ends before %d calls of the receiver %s are made", left, name)


def _forget_parents_calls() -> None:
    global _lock
    _lock = native_threads.lock()
    _waiting.clear()
    _warned.clear()


forks.call_in_child(_forget_parents_calls)
