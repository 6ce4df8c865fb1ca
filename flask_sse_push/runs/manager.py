"""All runs of one worker: their producers, and the thread that sends what they yield.

A key is held in the ledger while its producer runs, so no two run at once over all workers. When a worker is
killed, its lease ends, and whoever buries it reports its runs as failed.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ..announcer import MessageAnnouncer
from ..brokers.counts import CountChange, CountKey
from ..config import Settings
from ..errors import BrokerUnavailable, ErrorCode, InvalidEvent, Refused
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.shutdown import open_streams
from ..presence.worker_counts import WorkerCounts
from ..protocol.channel import checked_channel
from ..protocol.cursor import EARLIEST
from ..protocol.entry import Publication
from ..transports import server
from .output import BEGIN, END, Items, Output, end_data
from .producer import FAILED, STOPPED, Producer, discard

logger = logging.getLogger(__name__)

#: What a run's channel is called before its key.
PREFIX = "run:"
#: The command that ends a run, on whatever worker it is.
STOP = "run.stop"
#: The tables of the ledger: keys that are taken, and which run has each.
TAKEN, RUNNING = "run", "run.id"

#: Producers one worker may run at once: each has a thread or greenlet.
MAX_RUNS = 500
#: Events sent in one step: the broker does nothing else meanwhile.
MAX_SENT = 500
#: Seconds between two sendings of one run, when it begins and at most.
PACE, SLOWEST = 0.1, 5.0
#: Seconds until a send that failed is tried again, on average.
PAUSE = 0.5
#: Seconds between two looks at whether the worker is to stop.
LOOK = 0.5
#: Seconds that runs may go on in a worker that is to stop, but not at once.
GRACE = 15.0
#: Tries to take a key whose run has just ended, and seconds between them.
TRIES, AGAIN = 3, 0.15


class Run(NamedTuple):
    """What `start` returns."""

    key: str  #: what `stop` is given
    channel: str  #: what readers listen to
    cursor: str  #: readers that begin after it get the whole run; `earliest` when it had been started before
    started: bool  #: False: a run with this key is under way already, and the producer was not used


def checked_key(key: str) -> str:
    """The channel of the run `key`.

    :raises InvalidEvent: when it does not fit into a channel's name.
    """
    if not isinstance(key, str) or not key:
        raise InvalidEvent("key", f"is {key!r}, must be a string that fits into a channel's name")
    return checked_channel(PREFIX + key)


class Runs:
    """Starts and stops producers. Any thread may call."""

    def __init__(
        self,
        announcer: MessageAnnouncer,
        worker_counts: WorkerCounts,
        hub: Hub,
        settings: Settings,
        stopping: Callable[[], bool],
    ) -> None:
        self._announcer = announcer
        self._worker_counts = worker_counts
        self._hub = hub
        self._settings = settings
        self._stopping = stopping
        self._stopping_since: float | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._producers: dict[str, Producer] = {}  # by id
        self._lost: deque[tuple[str, str]] = deque()  # key and id of runs whose worker was killed
        self._own: set[str] = set()  # ids whose end the ledger is still to learn
        self._places_taken = 0
        self._started = self._closed = False
        worker_counts.listen(self._note_changes)
        hub.commands.on(STOP, self._obey_stop)

    def __len__(self) -> int:
        return len(self._producers) + len(self._lost)

    # -- starting and stopping ----------------------------------------------------------------------------

    def start(self, items: Items, key: str, context: Callable[[], AbstractContextManager[Any]]) -> Run:
        """Begins a run, unless one with this key is under way; see `SSEBlueprint.start`. Blocks."""
        channel = checked_key(key)
        self._take_place()
        try:
            producer = self._reserve(key, channel)
            cursor = self._begin(producer) if producer else EARLIEST
        except BaseException:
            self._give_place()
            raise
        if producer is None:
            self._give_place()
            discard(items)
            return Run(key, channel, EARLIEST, False)
        self._producers[producer.id] = producer
        self._ensure_thread()
        threading.Thread(
            target=self._produce, args=(producer, items, context), name="flask-sse-push-run", daemon=True
        ).start()
        return Run(key, channel, cursor, True)

    def _take_place(self) -> None:
        with self._lock:
            if self._places_taken >= MAX_RUNS:
                message = f"this worker runs {MAX_RUNS} producers already"
                raise Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message, retry_after=self._settings.retry)
            self._places_taken += 1

    def _give_place(self) -> None:
        with self._lock:
            self._places_taken -= 1

    def _produce(
        self, producer: Producer, items: Items, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        try:
            producer.run(items, context)
        finally:
            self._give_place()

    def _reserve(self, key: str, channel: str) -> Producer | None:
        """A producer that has its key to itself; None when another run has it."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(AGAIN)
            id = secrets.token_urlsafe(9)
            keys = CountKey(TAKEN, key), CountKey(RUNNING, f"{key} {id}")
            self._own.add(id)
            lease = self._worker_counts.lease(keys)
            try:
                others = lease.totals(self._settings.publish_timeout)[keys[0]] - 1
            except BrokerUnavailable:
                lease.release()
                raise
            if not others:
                output = Output(self._announcer, channel, self._settings.max_message)
                name = self._worker_counts.name
                return Producer(key, id, channel, output, lease, name, self._wake.set)
            lease.release()
            self._worker_counts.hurry()
        return None

    def _begin(self, producer: Producer) -> str:
        """Makes the worker hear of `stop`, and publishes that the run has begun; returns where."""
        try:
            self._hub.hear_commands(self._settings.publish_timeout)
        except BrokerUnavailable:
            producer.lease.release()
            raise
        try:
            return self._announcer.publish({"run": producer.id}, BEGIN, channel=producer.channel)
        except BrokerUnavailable:
            self._let_go(producer)
            raise

    def _obey_stop(self, arguments: Mapping[str, Any]) -> list[Effect]:
        for producer in list(self._producers.values()):
            if producer.key == arguments["key"]:
                producer.finish(STOPPED)
        return []

    def _let_go(self, producer: Producer) -> None:
        producer.output.close()
        self._hub.stop_hearing_commands()
        producer.lease.release()
        self._worker_counts.hurry()

    # -- workers that were killed: called by the registry's thread ------------------------------------------

    def _note_changes(self, changes: Sequence[CountChange]) -> None:
        for key, before, after in changes:
            if key.table == RUNNING and not after:
                name, _, id = key.name.rpartition(" ")
                if id in self._own:
                    self._own.discard(id)
                elif before:
                    self._lost.append((name, id))
                    self._ensure_thread()
                    self._wake.set()

    # -- the thread -----------------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        with self._lock:
            first, self._started = not self._started, True
        if first:
            open_streams.append(self.__len__)
            threading.Thread(target=self.run, name="flask-sse-push-runs", daemon=True).start()
        self._wake.set()

    def run(self) -> None:
        """Sends until closed. Meant to be a thread's body."""
        while not self._closed:
            self._wake.wait(self._patience(time.monotonic()))
            self._wake.clear()
            try:
                self._look_around(time.monotonic())
                self._report_lost()
                self._send_due(time.monotonic())
            except Exception:
                logger.exception("sending what runs yield failed, trying again")
                time.sleep(PAUSE)

    def _patience(self, now: float) -> float | None:
        """Seconds until something is due; None while nothing runs."""
        waits = [producer.due - now for producer in list(self._producers.values()) if len(producer.output)]
        return max(0.0, min([LOOK, *waits])) if self._producers else None

    def _look_around(self, now: float) -> None:
        """Ends runs that must not go on: the worker stops, or has slept so long that it was buried."""
        if self._stopping() and self._stopping_since is None:
            self._stopping_since = now
        late = (
            self._stopping_since is not None and now - self._stopping_since >= GRACE
        ) or server.is_quitting()
        for producer in list(self._producers.values()):
            if producer.worker != self._worker_counts.name:
                producer.finish(FAILED, "WorkerLost")
            elif late:
                producer.finish(FAILED, "WorkerStopped")

    def _report_lost(self) -> None:
        while self._lost and not self._closed:
            key, id = self._lost[0]
            self._publish_end(PREFIX + key, id, FAILED, "WorkerLost")
            self._lost.popleft()

    def _send_due(self, now: float) -> None:
        due = [producer for producer in list(self._producers.values()) if producer.is_due(now)]
        publications: list[Publication] = []
        for producer in due:
            taken = self._take(producer, MAX_SENT - len(publications))
            producer.note_sent(len(taken), self._pace(producer))
            publications += taken
        if publications:
            once = f"run:{secrets.token_urlsafe(12)}"
            self._until_sent(lambda: self._send(publications, once))
        for producer in due:
            end = producer.end
            if end is not None and not len(producer.output):
                self._publish_end(producer.channel, producer.id, *end)
                self._producers.pop(producer.id, None)
                self._let_go(producer)
            elif len(producer.output):
                self._wake.set()

    def _take(self, producer: Producer, most: int) -> list[Publication]:
        try:
            return producer.output.take(most)
        except InvalidEvent as error:
            logger.warning("run %r yielded text that cannot be sent: %s", producer.key, error)
            producer.finish(FAILED, type(error).__name__)
            return []

    def _pace(self, producer: Producer) -> float:
        """Seconds between sendings: the fewer places of the history are left, the longer, so that a long run
        keeps its beginning."""
        left = max(1, self._settings.history_size - producer.events)
        return min(SLOWEST, PACE * self._settings.history_size / left)

    def _send(self, publications: list[Publication], once: str) -> None:
        with self._announcer.batch(id=once) as batch:
            batch.publications += publications

    def _publish_end(self, channel: str, id: str, status: str, error: str | None) -> None:
        """Publishes how a run ended; the first word of any worker counts."""
        data = end_data(id, status, error)
        self._until_sent(lambda: self._announcer.publish(data, END, channel=channel, id=f"run.end:{id}"))

    def _until_sent(self, send: Callable[[], object]) -> None:
        """Tries until the broker has it. Producers that get too far ahead wait meanwhile."""
        told = False
        while not self._closed:
            try:
                send()
                return
            except BrokerUnavailable as error:
                if not told:
                    logger.warning("what runs yield waits for the broker: %s", error)
                told = True
                time.sleep(PAUSE * (0.5 + random.random()))

    def close(self) -> None:
        """Ends the thread and all runs, without a word to their readers; may be called twice."""
        self._closed = True
        for producer in list(self._producers.values()):
            producer.finish(FAILED, "WorkerStopped")
            producer.output.close()
        self._producers.clear()
        self._lost.clear()
        if self.__len__ in open_streams:
            open_streams.remove(self.__len__)
        self._wake.set()
