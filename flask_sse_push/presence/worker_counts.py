"""Counts of this worker, such as the open streams of each user, and the totals of all workers.

A thread collects changes for GATHER seconds and reports them to the broker in one call. So one call is enough
even if many streams open at once. The thread also renews the lease of the worker, and subtracts the counts of
killed workers from the totals.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ..brokers.counts import MAX_COUNTS, CountChange, CountKey, Counts
from ..brokers.forks import stays_in_parent
from ..errors import BrokerUnavailable
from ..hub import background
from ..hub.drain import open_streams
from ..hub.listener import StreamListener

logger = logging.getLogger(__name__)

#: Seconds until a worker that no longer reports is regarded as dead. Its counts are removed at most RENEW
#: seconds later.
LEASE = 15.0
#: Seconds between two reports that renew the lease.
RENEW = 5.0
#: How long changes are collected before a report, in seconds. If a call waits for a total, the report is
#: sent at once.
GATHER = 0.1
#: Seconds until a failed report is repeated, on average.
PAUSE = 1.0

#: A function that takes the list of the totals that changed.
CountListener = Callable[[Sequence[CountChange]], None]


class Report(NamedTuple):
    """The content of one report to the broker. If the reply is lost, the same report is sent again."""

    worker: str
    serial: int
    counts: dict[CountKey, int]
    number: int  # numbers the reports of this process, even if the worker's name changes


class Reservation:
    """Adds one to the counts of several keys, for example of a user and of an address, until `release`."""

    __slots__ = ("_after", "_complete", "_counts", "_totals", "_worker_counts")

    def __init__(self, worker_counts: WorkerCounts, counts: dict[CountKey, int], after: int) -> None:
        self._worker_counts = worker_counts
        self._counts = counts  # this worker's counts just after this reservation was added
        self._after = after  # number of the last report that was made before this reservation
        self._complete = threading.Event()
        self._totals: dict[CountKey, int] = {}

    @stays_in_parent
    def totals(self, timeout: float) -> dict[CountKey, int]:
        """Returns the count of each key on all workers, just after the broker added this reservation.

        Blocks. The broker adds reservations one after the other. If two workers add the last allowed stream
        of a user at the same time, exactly one of the workers sees a total above the limit.

        :raises BrokerUnavailable: if the totals do not arrive within `timeout` seconds. The reservation
            is not released.
        """
        self._worker_counts.hurry()
        if not self._complete.wait(timeout):
            raise BrokerUnavailable(f"the broker did not answer in time: no totals came within {timeout:g} s")
        return dict(self._totals)

    @property
    def here(self) -> dict[CountKey, int]:
        """The count of each key on this worker, just after this reservation was added."""
        return dict(self._counts)

    def release(self) -> None:
        """Subtracts one from the count of each key. Does nothing when called again. Does not block."""
        counts, self._counts = self._counts, {}
        self._worker_counts.add(dict.fromkeys(counts, -1))

    def take_total(self, key: CountKey, total: int, report: Report) -> bool:
        """Stores the total that the broker returned for `report`, if the report included this reservation.

        Returns whether the report included this reservation.
        """
        if report.number <= self._after:
            return False
        if key in self._counts:
            self._totals[key] = total - report.counts[key] + self._counts[key]
            if len(self._totals) == len(self._counts):
                self._complete.set()
        return True


class WorkerCounts(StreamListener):
    """The counts of one worker, and the thread that reports them. The thread starts on first use.

    Any thread may call the methods. Only `Reservation.totals` and `close` block.

    :param streams: a function that returns how many streams are open. While a stream is open, the worker
        stays in the broker's list of workers, even if the worker counts nothing.
    """

    def __init__(self, broker_counts: Counts, streams: Callable[[], int] = lambda: 0) -> None:
        self._broker_counts = broker_counts
        self._streams = streams
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurried = threading.Event()  # if set, the thread reports now and collects no more changes
        self._counts: dict[CountKey, int] = {}
        self._unreported: dict[CountKey, None] = {}  # keys whose count has changed, the oldest first
        # The reservations that wait for a total.
        self._unanswered: defaultdict[CountKey, list[Reservation]] = defaultdict(list)
        # Counts to reduce by one later: first the monotonic time, second the key.
        self._drops: deque[tuple[float, CountKey]] = deque()
        self._listeners: list[CountListener] = []
        self._pending: Report | None = None  # the report whose reply has not arrived
        self._number = 0  # number of the last report
        self._serial = 0  # serial of the last report that the broker accepted under this name; 0: none yet
        self._renewed = -math.inf  # monotonic time of the last accepted report
        self._failed = False
        self._started = self._closed = False
        self.name = secrets.token_hex(6)

    # -- counting -----------------------------------------------------------------------------------------

    def reserve(self, keys: Iterable[CountKey]) -> Reservation:
        """Adds one to the count of each key, until the returned reservation is released. Does not block.

        Nothing can interrupt this method after the step that counts, so the caller gets each reservation.
        """
        self._ensure_thread()  # switches to other greenlets, so it comes first
        with self._lock:
            counts = self._add(dict.fromkeys(keys, 1))
            reservation = Reservation(self, counts, self._number)
            for key in counts:
                self._unanswered[key].append(reservation)
        self._wake.set()
        return reservation

    def add(self, changes: Mapping[CountKey, int]) -> None:
        """Adds to the count of each key the number given for the key. Does not block."""
        with self._lock:
            self._add(changes)
        self.wake()

    def _add(self, changes: Mapping[CountKey, int]) -> dict[CountKey, int]:
        for key, change in changes.items():
            self._counts[key] = max(0, self._counts.get(key, 0) + change)
            self._unreported[key] = None
        return {key: self._counts[key] for key in changes}

    def names(self, table: str, most: int) -> list[str]:
        """Returns names that have a count on any worker; see `Counts.names`. Blocks for one call."""
        return self._broker_counts.names(table, most)

    def drop_later(self, key: CountKey, seconds: float) -> None:
        """Subtracts one from the count of `key` after `seconds`. Does not block.

        :param seconds: how long to wait; must be the same in all calls.
        """
        with self._lock:
            first = not self._drops
            self._drops.append((time.monotonic() + seconds, key))
        if first:
            self.wake()  # otherwise the thread might wait too long before this drop

    def listen(self, listener: CountListener) -> None:
        """Registers a listener. The thread calls the listener with the totals that changed.

        A total changes through a report of this worker, or because this worker removed the counts of a killed
        worker. The listener notes the totals, without blocking. After each round of reports the thread also
        calls the listener with an empty sequence. Then the listener may block, for example to publish events.
        """
        self._listeners.append(listener)

    def hurry(self) -> None:
        """Makes the thread report now, without waiting for more changes. Does not block."""
        self._hurried.set()
        self.wake()

    def first_opened(self) -> None:
        self.wake()  # the thread reports, so that the broker lists this worker

    def wake(self) -> None:
        """Makes the thread look for changes to report. Starts the thread if needed. Does not block."""
        self._ensure_thread()
        self._wake.set()

    def _ensure_thread(self) -> None:
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                open_streams.append(self.unreported)
                background.start("counts", self.run)

    def unreported(self) -> int:
        """Returns how many changes the process must still report to the broker before it ends.

        Returns 0 while the broker does not answer, so that the process need not wait for the broker.
        """
        return 0 if self._failed else len(self._unreported) + bool(self._pending)

    # -- run by the thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """Reports changes and renews the lease until `close` is called. The main function of the thread."""
        while not self._closed:
            self._wake.wait(self._seconds_to_wait(time.monotonic()))
            self._wake.clear()
            self._hurried.wait(GATHER)
            self._hurried.clear()
            try:
                if not self._closed:
                    self._run_round(time.monotonic())
            except BrokerUnavailable as error:
                if not self._failed:
                    logger.warning("this worker's counts cannot be reported now, trying again: %s", error)
                self._pause()
            except Exception:
                logger.exception("reporting this worker's counts failed, trying again")
                self._pause()

    def _pause(self) -> None:
        self._failed = True
        time.sleep(PAUSE * (0.5 + random.random()))
        self._wake.set()

    def _is_idle(self) -> bool:
        return not (self._counts or self._drops or self._streams())

    def _seconds_to_wait(self, now: float) -> float | None:
        """Returns the seconds until the lease must be renewed or a count must be reduced.

        Returns None if the thread has nothing to do before the next call of `wake`.
        """
        if self._is_idle() and not self._serial:
            return None
        until = self._renewed + RENEW
        if self._drops:
            until = min(until, self._drops[0][0])
        return max(0.0, until - now)

    def _run_round(self, now: float) -> None:
        """Reports all changes. Then renews the lease, or gives the lease up if nothing is left to count.

        :raises BrokerUnavailable: if the broker does not answer.
        """
        self._drop_expired(now)
        while self._unreported or self._pending:
            self._report(now)
        if self._is_idle():
            if self._serial:
                self._broker_counts.retire(self.name)
                self._start_over()
        elif now >= self._renewed + RENEW:
            self._report(now)
        self._failed = False
        for listener in self._listeners:
            listener(())

    def _drop_expired(self, now: float) -> None:
        with self._lock:
            while self._drops and self._drops[0][0] <= now:
                self._add({self._drops.popleft()[1]: -1})

    def _report(self, now: float) -> None:
        report = self._pending = self._pending or self._next_report()
        reply = self._broker_counts.report(report.worker, report.serial, report.counts, LEASE)
        if not reply.known:
            logger.warning("the broker no longer has this worker's counts; reporting all of them again")
            self._pending = None
            self._start_over()
            return
        self._serial, self._renewed = report.serial, now
        self._answer_reservations(report, reply.changes)
        self._notify(reply.changes)
        self._pending = None  # only now: a thread that is ended before leaves the reply to the next thread
        for worker in reply.expired:
            self._reap(worker)

    def _next_report(self) -> Report:
        with self._lock:
            counts = {}
            for key in list(islice(self._unreported, MAX_COUNTS)):
                del self._unreported[key]
                counts[key] = self._counts.get(key, 0)
                if not counts[key]:
                    self._counts.pop(key, None)
            self._number += 1
            return Report(self.name, self._serial + 1, counts, self._number)

    def _start_over(self) -> None:
        """Gives the worker a new name, and marks all counts as not yet reported."""
        with self._lock:
            self.name, self._serial, self._renewed = secrets.token_hex(6), 0, -math.inf
            self._unreported.update(dict.fromkeys(self._counts))

    def _answer_reservations(self, report: Report, changes: Sequence[CountChange]) -> None:
        with self._lock:
            for key, _, total in changes:
                reservations = self._unanswered.pop(key, ())
                later = [each for each in reservations if not each.take_total(key, total, report)]
                if later:
                    self._unanswered[key] = later

    def _notify(self, changes: Sequence[CountChange]) -> None:
        for listener in self._listeners if changes else ():
            listener(changes)

    def _reap(self, worker: str) -> None:
        """Subtracts the counts of a killed worker from the totals."""
        more = True
        while more:
            changes, more = self._broker_counts.reap(worker)
            self._notify(changes)

    def close(self) -> None:
        """Ends the thread. If this worker counts nothing, removes it from the broker's list of workers.

        If counts are left, they expire with the lease. May be called twice.
        """
        self._closed = True
        self._wake.set()
        if self.unreported in open_streams:
            open_streams.remove(self.unreported)
        if self._serial:
            with contextlib.suppress(BrokerUnavailable):
                self._broker_counts.retire(self.name)
