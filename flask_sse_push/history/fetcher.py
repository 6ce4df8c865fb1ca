"""The hand of a worker: the one thread that asks the broker for history, many channels in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..brokers.base import Broker, History
from ..errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Channels in one history call: what keeps the broker busy for about a millisecond.
MAX_AT_ONCE = 500
#: Seconds before a failed call is tried again.
PAUSE = 0.2


class HistoryRequest:
    """A wish for a channel's history after some position, and who waits for it."""

    __slots__ = ("after", "confirmed", "waiters")

    def __init__(self, after: int, *waiters: threading.Event) -> None:
        self.after = after
        self.confirmed = False  # the present link has confirmed the channel: it may go live by the answer
        self.waiters = set(waiters)

    def widen(self, after: int, waiters: Iterable[threading.Event]) -> None:
        """Makes it serve others too."""
        self.after = min(self.after, after)
        self.waiters |= set(waiters)

    def met(self) -> None:
        """Tells all who wait."""
        for waiter in self.waiters:
            waiter.set()
        self.waiters.clear()


class HistoryReply(NamedTuple):
    """A history, with the asks it meets, several for one channel.

    `generation` tells on which link's watch it was asked. `after` holds the positions as they were asked: an
    ask may have been widened since. `confirmed` names the channels that were so when the call was made.
    `at` is the monotonic time at which it came.
    """

    generation: int
    asks: dict[str, list[HistoryRequest]]
    after: dict[str, int]
    confirmed: frozenset[str]
    history: History
    at: float = 0.0


class HistoryFetcher:
    """Gathers asks while a call is under way and puts them all into the next one.

    When nothing is asked for, it sends a probe each interval, so that the link proves itself.

    :param deliver: gets each answer; may block.
    :param expect_echo: told True before a call, whose echo is then due, and False when the call failed.
    """

    def __init__(
        self,
        broker: Broker,
        inbox: str,
        deliver: Callable[[HistoryReply], None],
        probe: float,
        expect_echo: Callable[[bool], None] = lambda due: None,
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._deliver = deliver
        self._probe = probe
        self._expect_echo = expect_echo
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._queued: dict[str, list[HistoryRequest]] = {}
        self._closed = False
        self.generation = 0
        self.calls = 0

    def submit(self, channel: str, ask: HistoryRequest) -> None:
        """Queues a wish; all wishes for a channel go into one call. Does not block."""
        with self._lock:
            queued = self._queued.setdefault(channel, [])
            if ask not in queued:
                queued.append(ask)
        self._wake.set()

    def withdraw(self) -> dict[str, list[HistoryRequest]]:
        """Takes back all wishes that wait for a call. Does not block."""
        with self._lock:
            queued, self._queued = self._queued, {}
        return queued

    def run(self) -> None:
        """Asks until closed. Meant to be a thread's body."""
        while not self._closed:
            self._wake.wait(self._probe)
            self._wake.clear()
            if not self._closed:
                self._fetch()

    def _fetch(self) -> None:
        generation = self.generation
        asks = self._next_asks()
        after = {name: min(ask.after for ask in wishes) for name, wishes in asks.items()}
        confirmed = frozenset(name for name, wishes in asks.items() if any(ask.confirmed for ask in wishes))
        try:
            self.calls += 1
            self._expect_echo(True)
            history = self._broker.history(after, self._inbox)
        except Exception as error:  # whatever it is, the wishes stay, and so does the thread
            self._expect_echo(False)
            unavailable = isinstance(error, BrokerUnavailable)
            logger.log(
                logging.DEBUG if unavailable else logging.ERROR,
                "history is not to be had now: %s",
                error,
                exc_info=not unavailable,
            )
            for name, wishes in asks.items():
                for ask in wishes:
                    self.submit(name, ask)
            time.sleep(PAUSE)
            return
        self._deliver(HistoryReply(generation, asks, after, confirmed, history, time.monotonic()))

    def _next_asks(self) -> dict[str, list[HistoryRequest]]:
        with self._lock:
            names = list(self._queued)[:MAX_AT_ONCE]
            asks = {name: self._queued.pop(name) for name in names}
            if self._queued:
                self._wake.set()
            return asks

    def close(self) -> None:
        """Lets `run` return soon."""
        self._closed = True
        self._wake.set()
