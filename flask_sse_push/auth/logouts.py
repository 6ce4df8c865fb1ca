"""Ends the streams of users who log out, also while the broker does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import BrokerUnavailable
from ..hub import background
from ..hub.hub import Hub

logger = logging.getLogger(__name__)

#: Seconds until a command that could not be published is tried again.
PAUSE = 1.0
#: At most this many commands wait for a broker that does not answer. A further command replaces the oldest.
MAX_UNSENT = 1000


class UnsentLogouts:
    """The logouts that this worker could not publish yet. A thread publishes them when the broker is back.

    :param send: a function that publishes a command, and raises BrokerUnavailable if the broker does not
        answer.
    """

    def __init__(self, hub: Hub, send: Callable[..., Any]) -> None:
        self._hub = hub
        self._send = send
        self._lock = threading.Lock()
        self._unsent: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_UNSENT)
        self._runs = self._closed = False

    def add(self, command: str, arguments: dict[str, Any]) -> None:
        """Revokes rights on this worker now, and on all workers when the broker is back.

        :param command: REVOKE or REVOKE_SESSION.
        """
        self._hub.call_soon(partial(self._hub.disconnector.revoke, arguments))
        with self._lock:
            self._unsent.append((command, arguments))
            starts, self._runs = not self._runs, True
        if starts:
            background.start("logouts", self._run)

    def _run(self) -> None:
        while self._has_more():
            try:
                unsent = self._unsent[0]
                self._send(unsent[0], **unsent[1])
                self._forget(unsent)
            except BrokerUnavailable:
                time.sleep(PAUSE)
            except Exception:
                logger.exception(
                    "the other workers do not know of a logout yet; telling them again in %g s", PAUSE
                )
                time.sleep(PAUSE)

    def _forget(self, sent: tuple[str, dict[str, Any]]) -> None:
        with self._lock:
            if self._unsent[0] is sent:  # `add` may have dropped it
                self._unsent.popleft()

    def _has_more(self) -> bool:
        with self._lock:
            self._runs = bool(self._unsent) and not self._closed
            return self._runs

    def close(self) -> None:
        """Ends the thread soon. May be called twice."""
        self._closed = True
