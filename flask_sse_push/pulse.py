"""What a worker does every second beside its streams: hands its figures on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from . import drain

logger = logging.getLogger(__name__)

#: Seconds between two beats.
EVERY = 1.0


class Pulse:
    """Calls each of `actions` about every second, and once more when the process ends.

    Its thread starts with the first `wake`, and not at all without actions. `close` may be called twice.
    """

    def __init__(self, actions: Sequence[Callable[[], None]]) -> None:
        self._actions = actions
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._started = not actions

    def wake(self) -> None:
        """Makes sure that it beats. Does not block."""
        if self._started:
            return
        with self._lock:
            first, self._started = not self._started, True
        if first:
            drain.find_worker()
            drain.last_words.append(self.beat)
            threading.Thread(target=self._run, name="flask-sse-push-pulse", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self.beat()

    def beat(self) -> None:
        """Calls the actions now; one that fails keeps no other from its turn."""
        for action in self._actions:
            try:
                action()
            except Exception:
                logger.exception("handing on the worker's figures failed")

    def close(self) -> None:
        """Ends the thread after a last beat."""
        if self.beat in drain.last_words:
            drain.last_words.remove(self.beat)
            self._stop.set()
            self.beat()
