"""One generator that runs in a thread of its own."""

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
    """Runs a generator until it ends, fails or is told to end. `wake` is called when there is work."""

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
        self.worker = worker  # the name under which this worker holds the key
        self.events = 0  # sent so far
        self.due = 0.0  # monotonic time before which nothing more is sent
        self._wake = wake
        self._lock = threading.Lock()
        self._end: tuple[str, str | None] | None = None

    @property
    def end(self) -> tuple[str, str | None] | None:
        """How it ended: status and error; None while it runs."""
        return self._end

    def finish(self, status: str, error: str | None = None) -> None:
        """Ends it; the first word counts. The generator learns of it at its next item. Does not block."""
        with self._lock:
            if self._end is None:
                self._end = status, error
        self._wake()

    def run(self, items: Items, context: Callable[[], AbstractContextManager[Any]]) -> None:
        """A thread's body."""
        try:
            with context(), producing(items) as found:
                for item in found:
                    if self._end is not None or not self.output.put(item):
                        break
                    if len(self.output) == 1:  # the writer knows of the others
                        self._wake()
            self.finish(DONE)
        except Exception as error:
            logger.exception("the producer of run %r failed", self.key)
            self.finish(FAILED, type(error).__name__)
        except BaseException as error:  # its greenlet was killed
            self.finish(FAILED, type(error).__name__)
            raise

    def is_due(self, now: float) -> bool:
        """Whether something is to be sent now."""
        return self._end is not None or (len(self.output) > 0 and self.due <= now)

    def note_sent(self, count: int, pace: float) -> None:
        """Counts events that were sent; the next may go in `pace` seconds."""
        self.events += count
        self.due = time.monotonic() + pace


@contextlib.contextmanager
def producing(items: Items) -> Iterator[Iterable[Any]]:
    """What is to be iterated over; a generator is closed at the end, so that its `finally` runs here."""
    found = items() if callable(items) else items
    try:
        yield found
    finally:
        discard(found)


def discard(items: Items) -> None:
    """Closes a generator that is not iterated over any more."""
    close = getattr(items, "close", None)
    if close is not None:
        close()
