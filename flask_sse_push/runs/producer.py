"""One run in this worker: a generator in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from ..hub.callbacks import CallbackFailed, calling
from .output import Items, Output
from .run import id_in

logger = logging.getLogger(__name__)

DONE, STOPPED, FAILED = "done", "stopped", "failed"
#: Seconds between two publications of one run. The first value applies at the beginning of a run. The time
#: grows with the run, at most to the second value.
MIN_INTERVAL, MAX_INTERVAL = 0.1, 5.0
#: After this many seconds, a generator that never waits lets the other threads of the worker run.
TURN = 0.01


class Producer:
    """Puts the items of a generator into `output` until the generator ends, fails or is stopped.

    :param key: the key of the run.
    :param name: the name of the run; see `unique_name`.
    :param channel: the channel of the run.
    :param held: gives back what the run holds, such as its key, when it is closed.
    :param worker: this worker's name in the broker's counts when the run began.
    :param wake: wakes the publishing thread. Called when `output` was empty and gets an item, and when the
        run has ended.
    """

    def __init__(
        self,
        key: str,
        name: str,
        channel: str,
        output: Output,
        held: contextlib.ExitStack,
        worker: str,
        wake: Callable[[], None],
    ) -> None:
        self.key = key
        self.name = name
        self.id = id_in(name)
        self.channel = channel
        self.output = output
        self.held = held
        self.worker = worker
        self.began = time.monotonic()
        self.cursor: str | None = None  # of `run.begin`; None until it is certain that the broker has it
        self.events = 0  # number of events published so far
        self.next_send = 0.0  # monotonic time from which on the next events may be published
        self._wake = wake
        self._lock = threading.Lock()
        self.end: tuple[str, str | None] | None = None  # status and error; None until the run has ended

    def finish(self, status: str, error: str | None = None) -> None:
        """Ends the run with a status. Only the first call has an effect. Does not block.

        If the generator is still running, it is closed when it yields its next item.
        """
        with self._lock:
            if self.end is None:
                self.end = status, error
        self._wake()

    def run(self, items: Items, context: Callable[[], AbstractContextManager[Any]]) -> None:
        """Runs the generator inside the context manager that `context` returns. The body of the thread."""
        try:
            turn_began = time.monotonic()
            with calling("producer", items), context(), iterating(items) as iterable:
                for item in iterable:
                    if self.end is not None or not self.output.put(item):
                        break
                    if len(self.output) == 1:  # the publishing thread knows about earlier items
                        self._wake()
                    if time.monotonic() - turn_began >= TURN:
                        time.sleep(0)  # with gevent, nothing else runs until a thread waits
                        turn_began = time.monotonic()
            self.finish(DONE)
        except CallbackFailed as failure:
            self.finish(FAILED, type(failure.error).__name__)
            logger.error("the producer of run %r failed: %r", self.key, failure.error)
        finally:
            self.finish(FAILED, "WorkerStopped")  # unless the run has ended: an exit of the process came

    def is_due(self, now: float) -> bool:
        """Returns whether events of the run, or its `run.end`, must be published now."""
        return self.end is not None or (len(self.output) > 0 and self.next_send <= now)

    def note_sent(self, count: int, kept: int) -> None:
        """Notes that `count` events were published, and when the next events may be published.

        The time in between grows as the run fills the history of its channel, so that the history keeps the
        beginning of a long run.

        :param kept: how many events the history keeps.
        """
        interval = min(MAX_INTERVAL, MIN_INTERVAL * kept / max(1, kept - self.events))
        self.events += count
        self.next_send = time.monotonic() + interval


@contextlib.contextmanager
def iterating(items: Items) -> Iterator[Iterable[Any]]:
    """A context manager that gives the iterable of `items`. Closes a generator at the end.

    So the `finally` blocks of the generator run in this thread.
    """
    iterable = items() if callable(items) else items
    try:
        yield iterable
    finally:
        close_items(iterable)


def close_items(items: Items) -> None:
    """Closes `items` if it is a generator."""
    function = getattr(items, "close", None)
    if function is not None:
        function()
