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

#: Channels in one history call. That many keep the broker busy for about a millisecond.
MAX_AT_ONCE = 500
#: Seconds before a failed call is tried again.
PAUSE = 0.2


class HistoryRequest:
    """A request for a channel's history after some position, with the events to set when it was read."""

    __slots__ = ("after", "confirmed", "waiters")

    def __init__(self, after: int, *waiters: threading.Event) -> None:
        self.after = after
        self.confirmed = False  # whether the current link has confirmed the channel
        self.waiters = set(waiters)

    def merge(self, other: HistoryRequest) -> None:
        """Makes this request serve `other` as well."""
        self.after = min(self.after, other.after)
        self.waiters |= other.waiters


class HistoryReply(NamedTuple):
    """A history, and the requests that it answers. There may be several for one channel.

    A request may be merged with others while the call is under way, so `after` and `confirmed` keep what held
    when the call was made.
    """

    generation: int  # the fetcher's when the call was made; an older one makes the reply void
    requests: dict[str, list[HistoryRequest]]
    after: dict[str, int]  # for each channel the position that was asked for
    confirmed: frozenset[str]  # channels that the link had confirmed
    history: History
    received_at: float = 0.0  # monotonic seconds


class HistoryFetcher:
    """Collects requests while a call is under way and puts them all into the next one.

    Without requests it sends a probe each interval, so that the link is tested.

    :param put: gets the number of the shard and each reply; may block.
    :param probe: seconds between probes.
    :param expect_echo: called with True before each call, whose echo is to arrive over the link, and with
        False when the call failed.
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
        self.generation = 0  # counts how often all earlier calls became void
        self.calls = 0

    def submit(self, channel: str, request: HistoryRequest) -> None:
        """Queues a request. All requests for a channel go into one call. Does not block."""
        with self._lock:
            queued = self._queued.setdefault(channel, [])
            if request not in queued:
                queued.append(request)
        self._wake.set()

    def withdraw(self) -> dict[str, list[HistoryRequest]]:
        """Takes back all requests that are not part of a call yet. Does not block."""
        with self._lock:
            queued, self._queued = self._queued, {}
        return queued

    def run(self) -> None:
        """Reads history until closed. The body of a thread."""
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
        except Exception as error:  # any error: the thread goes on, and the requests are kept
            self._expect_echo(False)
            self._retry_later(requests, error)
            return
        reply = HistoryReply(generation, requests, after, confirmed, history, time.monotonic())
        self._put((self._number, reply))

    def _retry_later(self, requests: dict[str, list[HistoryRequest]], error: Exception) -> None:
        unavailable = isinstance(error, BrokerUnavailable)
        level = logging.DEBUG if unavailable else logging.ERROR
        logger.log(level, "reading history failed: %s", error, exc_info=not unavailable)
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
        """Lets `run` return soon."""
        self._closed = True
        self._wake.set()
