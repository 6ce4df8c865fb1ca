"""The history fetcher: the thread of a worker that reads history, many channels in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..brokers.base import Broker, History
from ..errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: At most how many channels one history call reads. 500 channels keep the broker busy for about 1 ms.
MAX_AT_ONCE = 500
#: Seconds from a failed history call to the next attempt.
PAUSE = 0.2


class HistoryRequest:
    """A request for a channel's history after the position `after`.

    :param waiters: the `threading.Event` objects to set when the history was read.
    """

    __slots__ = ("after", "confirmed", "waiters")

    def __init__(self, after: int, *waiters: threading.Event) -> None:
        self.after = after
        self.confirmed = False  # whether the current link has confirmed its subscription to the channel
        self.waiters = set(waiters)

    def merge(self, other: HistoryRequest) -> None:
        """Extends this request, so that its reply also answers `other`."""
        self.after = min(self.after, other.after)
        self.waiters |= other.waiters


class HistoryReply(NamedTuple):
    """The reply to a history call, and the requests that the reply answers: one or more for each channel.

    `after` and `confirmed` have the values from the start of the call. The requests themselves may change
    during the call, when other requests are merged into them.
    """

    generation: int  # `HistoryFetcher.generation` at the start; an outdated reply is ignored
    requests: dict[str, list[HistoryRequest]]
    after: dict[str, int]  # for each channel, the position after which it was read
    confirmed: frozenset[str]  # channels whose subscription the link had confirmed
    history: History
    received_at: float = 0.0  # monotonic seconds when the reply came


class HistoryFetcher:
    """Reads history from one shard. Requests that come during a call go into the next call together.

    Without requests, the fetcher sends a probe at each interval to test the link.

    :param put: called with the number of the shard and each reply; may block.
    :param probe: seconds between probes.
    :param expect_echo: called with True before each history call, because the call's echo will arrive over
        the link. Called with False if the call failed.
    :param number: the number of the shard.
    """

    def __init__(
        self,
        broker: Broker,
        inbox: str,
        put: Callable[[tuple[int, HistoryReply]], None],
        probe: float,
        expect_echo: Callable[[bool], None] = lambda expected: None,
        number: int = 0,
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._put = put
        self._probe = probe
        self._expect_echo = expect_echo
        self._number = number
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._queued: dict[str, list[HistoryRequest]] = {}
        self._closed = False
        self.generation = 0  # grows by 1 when the replies to all earlier calls must be ignored
        self.calls = 0

    def submit(self, channel: str, request: HistoryRequest) -> None:
        """Queues a request for a channel's history. One call answers all queued requests. Does not block."""
        with self._lock:
            queued = self._queued.setdefault(channel, [])
            if request not in queued:
                queued.append(request)
        self._wake.set()

    def withdraw(self) -> dict[str, list[HistoryRequest]]:
        """Removes and returns all queued requests, by channel. Does not block."""
        with self._lock:
            queued, self._queued = self._queued, {}
        return queued

    def run(self) -> None:
        """Reads history until `close` is called. This is the main function of the fetcher's thread."""
        while not self._closed:
            self._wake.wait(self._probe)
            self._wake.clear()
            if not self._closed:
                self._fetch()

    def _fetch(self) -> None:
        generation = self.generation
        requests = self._take_batch()
        after = {name: min(request.after for request in several) for name, several in requests.items()}
        confirmed = frozenset(
            name for name, several in requests.items() if any(request.confirmed for request in several)
        )
        self.calls += 1
        self._expect_echo(True)
        try:
            history = self._broker.history(after, self._inbox)
        except Exception as error:  # the thread must not die from any error; the requests are queued again
            self._expect_echo(False)
            self._retry_later(requests, error)
            return
        reply = HistoryReply(generation, requests, after, confirmed, history, time.monotonic())
        self._put((self._number, reply))

    def _retry_later(self, requests: dict[str, list[HistoryRequest]], error: Exception) -> None:
        unavailable = isinstance(error, BrokerUnavailable)
        level = logging.DEBUG if unavailable else logging.ERROR
        logger.log(level, "reading history from the broker failed: %s", error, exc_info=not unavailable)
        for name, several in requests.items():
            for request in several:
                self.submit(name, request)
        time.sleep(PAUSE)

    def _take_batch(self) -> dict[str, list[HistoryRequest]]:
        with self._lock:
            names = list(self._queued)[:MAX_AT_ONCE]
            batch = {name: self._queued.pop(name) for name in names}
            if self._queued:
                self._wake.set()
            return batch

    def close(self) -> None:
        """Makes `run` return soon."""
        self._closed = True
        self._wake.set()
