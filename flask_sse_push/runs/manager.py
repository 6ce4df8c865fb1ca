"""All runs of one worker: their producers, and the thread that publishes their events.

While a run is going on, its worker counts the run's key in the broker, where all workers see the count. So
each key has at most one run at a time. When a worker is killed, its counts expire. The worker that removes
the expired counts from the broker publishes that the run has failed.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..brokers import forks, native_threads
from ..brokers.announcer import MessageAnnouncer
from ..brokers.counts import CountChange, CountKey
from ..config import Settings
from ..errors import BrokerUnavailable, ErrorCode, Refused
from ..hub import background
from ..hub.commands import Effect
from ..hub.drain import open_streams
from ..hub.hub import Hub
from ..presence.worker_counts import WorkerCounts
from ..protocol.cursor import EARLIEST
from ..protocol.data import flask_dumps
from ..protocol.entry import Publication
from ..transports import wsgi_server
from .output import BEGIN, END, Items, Output, end_data
from .producer import FAILED, STOPPED, Producer, close_items
from .run import PREFIX, Run, id_in, run_channel, unique_name

logger = logging.getLogger(__name__)

#: The name of the command that stops a run. All workers get the command.
STOP = "run.stop"
#: Tables of the shared counts: one with the keys in use; for each key, one with the names of its runs.
KEYS, NAMES = "run", "run.name "
#: At most this many ids of one key are read. A key has several while others try to start it too.
MAX_IDS = 20

#: At most this many runs at once in one worker. Each run has its own thread or greenlet.
MAX_RUNS = 500
#: At most this many events are published in one call, because the broker does nothing else during the call.
MAX_SENT = 500
#: Seconds until a failed publication is tried again, on average.
RETRY_DELAY = 0.5
#: Seconds between two checks whether the worker is stopping.
CHECK_INTERVAL = 0.5
#: How long runs may continue while their worker is stopping, in seconds. If the worker must end at once, its
#: runs end at once.
GRACE = 15.0
#: A key that is in use is tried several times, because its run may have just ended. The first value is the
#: number of tries, the second value is the seconds between two tries.
KEY_TRIES, KEY_DELAY = 3, 0.15


class Runs:
    """Starts and stops the runs of one worker. Any thread may call the methods.

    :param stopping: returns whether the worker is stopping.
    """

    def __init__(
        self,
        announcer: MessageAnnouncer,
        worker_counts: WorkerCounts,
        hub: Hub,
        settings: Settings,
        stopping: Callable[[], bool],
    ) -> None:
        self._announcer = announcer
        self._own_announcer = announcer.with_dumps(flask_dumps)  # for events without items of the app
        self._worker_counts = worker_counts
        self._hub = hub
        self._settings = settings
        self._stopping = stopping
        self._stopping_since: float | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self.producers: dict[str, Producer] = {}  #: the runs of this worker, by the name of the run
        self._lost: deque[tuple[str, str]] = deque()  # keys and names of runs whose worker was killed
        self._own: set[str] = set()  # names of this worker's runs; removed once the counts report their end
        self._places_taken = 0
        self._taken: list[Publication] = []  # events taken from the outputs, until they are published
        self._once = f"run:{secrets.token_urlsafe(12)}"  # idempotency id of these events
        self._started = self._closed = False
        worker_counts.listen(self._on_count_changes)
        hub.commands.on(STOP, self._handle_stop)

    def __len__(self) -> int:
        return len(self.producers) + len(self._lost)

    # -- starting and stopping ----------------------------------------------------------------------------

    @forks.stays_in_parent
    def start(
        self, items: Items, key: str, id: str, context: Callable[[], AbstractContextManager[Any]]
    ) -> Run:
        """Starts a run, unless a run with this key is going on. Blocks until the broker answers.

        :param items: the producer of the run; see `SSEBlueprint.start`, also for the key and the id.
        :param context: returns a context manager in which the producer runs.
        :raises RuntimeError: in a native thread of a process that runs gevent.
        :raises Refused: with status 503, if this worker already has `MAX_RUNS` runs.
        :raises BrokerUnavailable: if the broker does not answer in time; `items` is then not used.
        """
        channel = run_channel(key)
        native_threads.refuse_native()
        self._ensure_thread()
        with contextlib.ExitStack() as place:  # gives the place back if anything interrupts the start
            self._take_place(place)
            producer = self._prepare(key, id, channel)
            if producer is None:
                close_items(items)
                return Run(key, channel, EARLIEST, False, self.under_way(key))
            # From here on the publishing thread ends the run, and gives back what the run holds.
            self.producers[producer.name] = producer
            try:
                producer.cursor = self._publish_begin(producer)
                self._start_thread(producer, items, context, place)
            except BaseException as error:
                producer.finish(FAILED, type(error).__name__)
                raise
        return Run(key, channel, producer.cursor, True, (producer.id,))

    def under_way(self, key: str) -> tuple[str, ...]:
        """Returns the ids of the runs with this key that are going on: one, or none. Blocks for one call.

        While others try to start such a run, there may be more ids, of runs that will never begin.

        :raises BrokerUnavailable: if the broker does not answer in time.
        """
        return tuple(map(id_in, self._worker_counts.names(NAMES + key, MAX_IDS)))

    def _take_place(self, place: contextlib.ExitStack) -> None:
        with self._lock:
            if self._places_taken >= MAX_RUNS:
                message = f"this worker runs {MAX_RUNS} producers already"
                raise Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message, retry_after=self._settings.retry)
            self._places_taken += 1
            place.callback(self._free_place)

    def _free_place(self) -> None:
        with self._lock:
            self._places_taken -= 1

    def _prepare(self, key: str, id: str, channel: str) -> Producer | None:
        """Reserves the key for a new run and makes this worker hear commands. Returns the run's producer.

        Returns None if another run has the key. The producer's `held` gives everything back.
        """
        for attempt in range(KEY_TRIES):
            if attempt:
                time.sleep(KEY_DELAY)
            with contextlib.ExitStack() as held:
                name = unique_name(id)
                if self._reserve_key(key, name, held):
                    self._hub.hear_commands(self._settings.publish_timeout)
                    held.callback(self._hub.stop_hearing_commands)
                    output = Output(self._announcer, channel, self._settings.max_message)
                    held.callback(output.close)
                    worker = self._worker_counts.name
                    return Producer(key, name, channel, output, held.pop_all(), worker, self._wake.set)
        return None

    def _reserve_key(self, key: str, name: str, held: contextlib.ExitStack) -> bool:
        """Counts a run under its key in the broker. Returns whether no other run has the key.

        :param held: gets the functions that end the counting.
        """
        keys = CountKey(KEYS, key), CountKey(NAMES + key, name)
        self._own.add(name)
        reservation = self._worker_counts.reserve(keys)
        held.callback(self._worker_counts.hurry)
        held.callback(reservation.release)
        return reservation.totals(self._settings.publish_timeout)[keys[0]] == 1

    def _start_thread(
        self,
        producer: Producer,
        items: Items,
        context: Callable[[], AbstractContextManager[Any]],
        place: contextlib.ExitStack,
    ) -> None:
        """Starts the thread of a run. The thread gives back what `place` holds when the run has ended."""
        taken = place.pop_all()

        def produce() -> None:
            with taken:
                producer.run(items, context)

        try:
            background.start("run", produce, repeat=False)
        except RuntimeError:  # the system has no room for another thread
            taken.close()
            raise

    def _handle_stop(self, arguments: Mapping[str, Any]) -> list[Effect]:
        for producer in list(self.producers.values()):
            if producer.key == arguments["key"]:
                producer.finish(STOPPED)
        return []

    # -- called by the thread of the counts -----------------------------------------------------------------

    def _on_count_changes(self, changes: Sequence[CountChange]) -> None:
        for key, before, after in changes:
            if key.table.startswith(NAMES) and not after:
                if key.name in self._own:
                    self._own.discard(key.name)
                elif before:
                    self._lost.append((key.table.removeprefix(NAMES), key.name))
                    self._ensure_thread()
                    self._wake.set()

    # -- the publishing thread ------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        with self._lock:
            first, self._started = not self._started, True
        if first:
            open_streams.append(self.__len__)
            background.start("runs", self.run)
        self._wake.set()

    def run(self) -> None:
        """Publishes the events of all runs until `close` is called. The body of the publishing thread.

        If something has ended the thread, the next thread calls this method again.
        """
        while not self._closed:
            self._wake.wait(self._time_to_wait(time.monotonic()))
            self._wake.clear()
            try:
                self._fail_interrupted(time.monotonic())
                self._publish_lost()
                self._publish_due(time.monotonic())
            except Exception:
                logger.exception("publishing the events of runs failed, trying again")
                self._taken = []  # the next try must not fail for the same events
                time.sleep(RETRY_DELAY)

    def _time_to_wait(self, now: float) -> float | None:
        """Returns the seconds until the next publication or check; None if there are no runs."""
        producers = list(self.producers.values())
        waits = [producer.next_send - now for producer in producers if len(producer.output)]
        return max(0.0, min([CHECK_INTERVAL, *waits])) if producers else None

    def _fail_interrupted(self, now: float) -> None:
        """Ends runs as failed if this worker must stop now, or if the broker no longer has its counts.

        The counts of a worker are removed if the worker was suspended for too long.
        """
        if self._stopping() and self._stopping_since is None:
            self._stopping_since = now
        since = self._stopping_since
        late = wsgi_server.is_quitting() or (since is not None and now - since >= GRACE)
        for producer in list(self.producers.values()):
            if producer.worker != self._worker_counts.name:
                producer.finish(FAILED, "WorkerLost")
            elif late:
                producer.finish(FAILED, "WorkerStopped")

    def _publish_lost(self) -> None:
        while self._lost and not self._closed:
            key, name = self._lost[0]
            self._publish_end(PREFIX + key, name, FAILED, "WorkerLost")
            self._lost.popleft()

    def _publish_due(self, now: float) -> None:
        due = [producer for producer in list(self.producers.values()) if producer.is_due(now)]
        self._publish_taken()  # what the thread before this one has left, if something has ended it
        for producer in due:
            taken = self._take(producer, MAX_SENT - len(self._taken))
            producer.note_sent(len(taken), self._settings.policies[producer.channel].history)
            self._taken += taken
        self._publish_taken()
        for producer in due:
            if producer.end is not None and not len(producer.output):
                if producer.cursor is None:  # something has interrupted the start
                    self._retry(partial(self._publish_begin, producer))
                self._publish_end(producer.channel, producer.name, *producer.end)
                self.producers.pop(producer.name, None)
                producer.held.close()
            elif len(producer.output):
                self._wake.set()

    def _publish_taken(self) -> None:
        if self._taken:
            self._retry(lambda: self._publish(self._taken, self._once))
        self._taken, self._once = [], f"run:{secrets.token_urlsafe(12)}"

    def _take(self, producer: Producer, limit: int) -> list[Publication]:
        try:
            return producer.output.take(limit)
        except Exception as error:  # the other runs must go on
            logger.warning("the text of run %r cannot be sent: %s", producer.key, error)
            producer.finish(FAILED, type(error).__name__)
            return []

    def _publish(self, publications: list[Publication], once: str) -> None:
        with self._announcer.batch(id=once) as batch:
            batch.publications += publications

    def _publish_begin(self, producer: Producer) -> str:
        """Publishes `run.begin`, unless the broker has it already. Returns its cursor."""
        return self._publish_once({"run": producer.id}, BEGIN, producer.channel, producer.name)

    def _publish_end(self, channel: str, name: str, status: str, error: str | None) -> None:
        """Publishes `run.end`. If several workers publish it for a run, the broker stores only the first."""
        self._retry(lambda: self._publish_once(end_data(id_in(name), status, error), END, channel, name))

    def _publish_once(self, data: Mapping[str, Any], type: str, channel: str, name: str) -> str:
        once = f"{type}:{name.replace(' ', ':')}"
        return self._own_announcer.publish(data, type, channel=channel, id=once)

    def _retry(self, publish: Callable[[], object]) -> None:
        """Calls `publish` until the broker answers. Until then, producers with a full output wait."""
        warned = False
        while not self._closed:
            try:
                publish()
                return
            except BrokerUnavailable as error:
                if not warned:
                    logger.warning("publishing the events of runs waits for the broker: %s", error)
                warned = True
                time.sleep(RETRY_DELAY * (0.5 + random.random()))

    def close(self) -> None:
        """Ends the publishing thread and all runs. Publishes no `run.end`. May be called twice."""
        self._closed = True
        for producer in list(self.producers.values()):
            producer.finish(FAILED, "WorkerStopped")
            producer.output.close()
        self.producers.clear()
        self._lost.clear()
        if self.__len__ in open_streams:
            open_streams.remove(self.__len__)
        self._wake.set()
