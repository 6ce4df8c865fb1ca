"""One run in this worker: a generator in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from ..presence.worker_counts import Lease
from .output import Items, Output

logger = logging.getLogger(__name__)

DONE, STOPPED, FAILED = "done", "stopped", "failed"


class Producer:
    """Puts the items of a generator into `output` until it ends, fails or is stopped.

    :param lease: the lease of the run's key.
    :param worker: name under which this worker holds the lease.
    :param wake: called when `output` has got its first item, and when the run has ended.
    """

    def __init__(
        self,
        key: str,
        id: str,
        channel: str,
        output: Output,
        lease: Lease,
        worker: str,
        wake: Callable[[], None],
    ) -> None:
        self.key = key
        self.id = id
        self.channel = channel
        self.output = output
        self.lease = lease
        self.worker = worker
        self.events = 0  # events published so far
        self.next_send = 0.0  # monotonic time before which nothing more is published
        self._wake = wake
        self._lock = threading.Lock()
        self.end: tuple[str, str | None] | None = None  # status and error; None while it runs

    def finish(self, status: str, error: str | None = None) -> None:
        """Ends the run with a status; only the first call has an effect. Does not block.

        A generator that still runs is closed when it yields its next item.
        """
        with self._lock:
            if self.end is None:
                self.end = status, error
        self._wake()

    def run(self, items: Items, context: Callable[[], AbstractContextManager[Any]]) -> None:
        """Runs the generator inside `context`. Meant to be a thread's body."""
        try:
            with context(), iterating(items) as iterable:
                for item in iterable:
                    if self.end is not None or not self.output.put(item):
                        break
                    if len(self.output) == 1:  # the sending thread knows of earlier items
                        self._wake()
            self.finish(DONE)
        except Exception as error:
            logger.exception("the producer of run %r failed", self.key)
            self.finish(FAILED, type(error).__name__)
        except BaseException as error:  # its greenlet was killed
            self.finish(FAILED, type(error).__name__)
            raise

    def is_due(self, now: float) -> bool:
        """Returns whether events of the run, or its end, should be published now."""
        return self.end is not None or (len(self.output) > 0 and self.next_send <= now)

    def note_sent(self, count: int, interval: float) -> None:
        """Counts published events; the next ones go out after `interval` seconds."""
        self.events += count
        self.next_send = time.monotonic() + interval


@contextlib.contextmanager
def iterating(items: Items) -> Iterator[Iterable[Any]]:
    """Gives the iterable of `items`. Closes a generator at the end, so that its `finally` runs here."""
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
