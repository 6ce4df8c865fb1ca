"""The history fetcher: the thread of a worker that reads history, many channels in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..brokers.base import MAX_COUNTED, Broker, ChannelHistory, History
from ..errors import BrokerUnavailable
from ..protocol.cursor import MAX_ID
from .page import PageRequest
from .read_queue import MAX_FAILURES, ChannelRead, HistoryRequest, PageRead, ReadQueue, Requests
from .room import Room, Share

logger = logging.getLogger(__name__)

#: Seconds from a failed history call to the next attempt.
PAUSE = 0.2
#: After reading a part of a page's events for a stream, the fetcher rests for this many times as long as the
#: reading took, but at most for `LONGEST_REST` seconds. So pages leave the broker time for everything else.
REST = 2
LONGEST_REST = 0.05


class HistoryReply(NamedTuple):
    """The reply to a history call, and the requests that the reply answers: one or more for each channel.

    `after` and `confirmed` have the values from the start of the call. The requests themselves may change
    during the call, when other requests are merged into them.
    """

    generation: int  # `HistoryFetcher.generation` at the start; an outdated reply is ignored
    requests: Requests
    after: dict[str, int]  # for each channel, the position after which it was read
    confirmed: frozenset[str]  # channels whose subscription the link had confirmed
    history: History
    received_at: float = 0.0  # monotonic seconds when the reply came
    sent_at: float = 0.0  # monotonic seconds when the call began
    page: PageRequest | None = None  # the request for the page that the reply has
    share: Share | None = None  # the room that the reply takes


class HistoryFetcher:
    """Reads history from one shard. Requests that come during a call go into the next call together.

    Without requests, the fetcher sends a probe at each interval to test the link.

    :param put: called with the number of the shard and each reply; may block.
    :param probe: seconds between probes.
    :param expect_echo: called with True before each history call, because the call's echo will arrive over
        the link. Called with False if the call failed.
    :param number: the number of the shard.
    :param room: the room of the worker for pages and replies.
    :param call_room: how many bytes the entries of one call may have.
    """

    def __init__(
        self,
        broker: Broker,
        inbox: str,
        put: Callable[[tuple[int, HistoryReply]], None],
        probe: float,
        expect_echo: Callable[[bool], None] = lambda expected: None,
        number: int = 0,
        room: Room | None = None,
        call_room: int = 1_000_000,
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._put = put
        self._probe = probe
        self._expect_echo = expect_echo
        self._number = number
        self._wake = threading.Event()
        room = room or Room(32 * call_room)
        room.on_return.append(self._go_on)
        self.queue = ReadQueue(room, call_room)
        self._closed = False
        self.generation = 0  # grows by 1 when the replies to all earlier calls must be ignored
        self.calls = 0
        self._sent_at = 0.0  # monotonic time at which the last call began

    def submit(self, channel: str, request: HistoryRequest) -> None:
        """Queues a request for a channel's history. One call answers many queued requests. Does not block."""
        self.queue.add(channel, request)
        self._wake.set()

    def submit_page(self, request: PageRequest, *, again: bool = False) -> PageRequest:
        """Queues a request for a page. Returns the request that will have the page. Does not block.

        :param again: whether the request was in the queue before.
        """
        queued = self.queue.add_page(request, again=again)
        self._wake.set()
        return queued

    def _go_on(self) -> None:
        """Called when there is room again for requests that had to wait."""
        if self.queue:
            self._wake.set()

    def run(self) -> None:
        """Reads history until `close` is called. This is the main function of the fetcher's thread."""
        while not self._closed:
            self._wake.wait(self._probe)
            self._wake.clear()
            if not self._closed:
                self._fetch()

    def _fetch(self) -> None:
        """Makes one call. The next call follows at once if further requests wait."""
        generation, began = self.generation, time.monotonic()
        read = self.queue.take()
        try:
            answered = self._answer(read, generation)
        except BaseException:  # something ends this thread; the next thread must find the requests
            self._expect_echo(False)
            self._queue_again(read, generation)
            raise
        if not answered:
            time.sleep(PAUSE)
        elif isinstance(read, PageRead) and not read.request.is_resync:
            time.sleep(min(REST * (time.monotonic() - began), LONGEST_REST))
        if isinstance(read, PageRead) or read.requests:  # if not, all other requests wait for room
            self._go_on()

    def _answer(self, read: ChannelRead | PageRead, generation: int) -> bool:
        """Makes a call, and passes its reply on. Returns False if the call failed: the requests then wait."""
        try:
            if isinstance(read, PageRead) and not self._has_begin(read.request):
                self.queue.add_page(read.request, again=True)  # after the other requests had their turn
                return True
            reply = self._read_page(read) if isinstance(read, PageRead) else self._read_channels(read)
        except Exception as error:  # the thread must not die from any error
            self._expect_echo(False)
            self._note_failure(read, error)
            return False
        self._send(reply._replace(generation=generation))
        return True

    def _queue_again(self, read: ChannelRead | PageRead, generation: int) -> None:
        if isinstance(read, ChannelRead):
            for name, several in read.requests.items():
                for request in several:
                    self.submit(name, request)
        elif generation == self.generation or not read.request.is_resync:
            self.submit_page(read.request, again=True)

    def _read_channels(self, read: ChannelRead) -> HistoryReply:
        history = self._call(lambda: self._broker.history(read.after, self._inbox, self.queue.call_room))
        return HistoryReply(0, read.requests, read.after, read.confirmed, history, share=read.share)

    def _read_page(self, read: PageRead) -> HistoryReply:
        request = read.request
        after = {name: max(at, request.begin) for name, at in request.after.items()}
        history = self._call(lambda: self._broker.page(after, self._inbox, read.room))
        return HistoryReply(0, {}, after, frozenset(), history, page=request, share=read.share)

    def _send(self, reply: HistoryReply) -> None:
        self._put((self._number, reply._replace(received_at=time.monotonic(), sent_at=self._sent_at)))

    def _call(self, read: Callable[[], History]) -> History:
        self.calls += 1
        self._expect_echo(True)
        self._sent_at = time.monotonic()
        return read()

    def _has_begin(self, request: PageRequest) -> bool:
        """Whether it is known where the page begins. If not, makes one call that searches for it."""
        count = request.newest
        if count is None:
            return True
        if not request.before or request.generation != self.generation:
            request.before, request.found, request.ids, request.begin = MAX_ID, 0, [], 0
            request.generation = self.generation
        newest = self._broker.newest(
            list(request.after), min(count - request.found, MAX_COUNTED), request.before
        )
        request.found += len(newest.ids)
        request.ids = (request.ids + newest.ids)[:MAX_COUNTED]
        request.before = newest.before
        if request.found >= count:
            request.begin, request.before = newest.ids[-1] - 1, 0
        return not request.before

    # -- failed calls -----------------------------------------------------------------------------------

    def _note_failure(self, read: ChannelRead | PageRead, error: Exception) -> None:
        """Queues the requests of a failed call again.

        If the broker answers other calls, the channels of the call are read one by one, so that a channel
        that cannot be read holds up no other channel.
        """
        unavailable = isinstance(error, BrokerUnavailable)
        level = logging.DEBUG if unavailable else logging.ERROR
        logger.log(level, "reading history from the broker failed: %s", error, exc_info=not unavailable)
        asks = isinstance(read, PageRead) or read.requests
        probe = self._probe_broker() if asks else None
        if isinstance(read, PageRead):
            self._retry_page(read.request, probe, error)
            return
        for name, several in read.requests.items():
            if probe is None:
                for request in several:
                    self.submit(name, request)
            elif len(read.requests) > 1:
                self.queue.add_apart(name, several)
            else:
                self._retry_alone(name, read, probe, error)

    def _probe_broker(self) -> History | None:
        """Returns the reply to a history call without channels; None if this call fails too."""
        try:
            return self._call(lambda: self._broker.history({}, self._inbox))
        except Exception:
            self._expect_echo(False)
            return None

    def _retry_alone(self, name: str, read: ChannelRead, probe: History, error: Exception) -> None:
        several = read.requests[name]
        for request in several:
            request.failures += 1
        if max(request.failures for request in several) < MAX_FAILURES:
            self.queue.add_apart(name, several)
            return
        _log_unreadable([name], error)
        history = _unreadable(probe, [name])
        reply = HistoryReply(self.generation, read.requests, read.after, read.confirmed, history)
        self._send(reply)

    def _retry_page(self, request: PageRequest, probe: History | None, error: Exception) -> None:
        request.failures += probe is not None
        if probe is None or request.failures < MAX_FAILURES:
            self.queue.add_page(request, again=True)
            return
        _log_unreadable(list(request.after), error)
        history = _unreadable(probe, list(request.after))
        request.is_lost = True
        reply = HistoryReply(self.generation, {}, request.after, frozenset(), history, page=request)
        self._send(reply)

    def close(self) -> None:
        """Makes `run` return soon."""
        self._closed = True
        self._wake.set()


def _unreadable(probe: History, names: list[str]) -> History:
    """Returns the history of channels whose events up to now cannot be read: these events count as gone."""
    return probe._replace(channels={name: ChannelHistory(probe.last, [], probe.last) for name in names})


def _log_unreadable(names: list[str], error: Exception) -> None:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    text = "the events of channels %s cannot be read; streams that need them get sse.reset: %s"
    logger.error(text, shown, error)
