"""The time limit of a command: a server that answers byte by byte must not hold the command for ever."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import click

from ..errors import SSEPushError
from ..protocol.printable import printable

#: What code may raise that reads an answer of a server that is no Redis, or whose data are foreign.
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)

Value = TypeVar("Value")
Command = TypeVar("Command", bound=Callable[..., Any])

_END = object()


def time_limit(seconds: float) -> Callable[[Command], Command]:
    """Returns a decorator that gives a command the option `--timeout`, whose default is `seconds`."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="At most how long all answers may take together. If they take longer, ends with an error.",
    )


def within(seconds: float, call: Callable[[], Value], hint: str = "") -> Value:
    """Returns `call()`, which asks a server. Raises what `call` raises. Blocks for at most `seconds`.

    Another thread makes the call. If the time is over, this thread is left alone and ends with the command.

    :param hint: a sentence for the error message: what the user should know if the time is over.
    :raises click.ClickException: if the time is over, or if the answer cannot be read.
    """
    outcomes: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((call(), None))
        except BaseException as error:
            outcomes.put((None, error))

    # The copy has Flask's current app.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    try:
        value, error = outcomes.get(timeout=max(0.0, seconds))
    except queue.Empty:
        hint = hint or "Is the server overloaded?"
        raise click.ClickException(
            f"the time limit is over, and the answer is not complete. {hint} --timeout sets another limit."
        ) from None
    if isinstance(error, UNREADABLE) and not isinstance(error, SSEPushError):
        why = printable(f"{type(error).__name__}: {error}")
        raise click.ClickException(f"the answer of the server cannot be read: {why}") from error
    if error is not None:
        raise error
    result: Value = value
    return result


def each_within(seconds: float, values: Iterable[Value], hint: str = "") -> Iterator[Value]:
    """Yields each of `values` as soon as it is there. All of them together take at most `seconds`.

    :raises click.ClickException: if the time is over.
    """
    deadline = time.monotonic() + seconds
    source = iter(values)
    while (value := within(deadline - time.monotonic(), partial(next, source, _END), hint)) is not _END:
        yield value


def shut(raw: socket.socket) -> None:
    """Ends a connection. Unlike `close`, this wakes a thread that reads from the connection."""
    with contextlib.suppress(OSError):  # the other side was quicker
        raw.shutdown(socket.SHUT_RDWR)
