"""What this worker holds, told to the broker's ledger in batches, so that all workers know the totals.

A thread gathers changes for a moment and tells them in one call; the more streams come at once, the bigger
the batches. It also renews the worker's lease and buries workers that were killed.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ..brokers.counts import MAX_AT_ONCE, CountChange, CountKey, Counts
from ..errors import BrokerUnavailable
from ..hub.listener import StreamListener
from ..hub.shutdown import open_streams
from ..hub.stream import Stream

logger = logging.getLogger(__name__)

#: Seconds after which a worker that is not heard of counts as dead. Its ghosts are gone RENEW seconds later.
LEASE = 15.0
#: Seconds between two renewals.
RENEW = 5.0
#: Seconds that changes are gathered, unless somebody waits for them.
GATHER = 0.1
#: Seconds until a call that failed is tried again, on average.
PAUSE = 1.0

CountListener = Callable[[Sequence[CountChange]], None]


class Lease:
    """What one stream holds of several keys, until it is released."""

    __slots__ = ("_after", "_known", "_places", "_totals", "_worker_counts")

    def __init__(self, worker_counts: WorkerCounts, places: dict[CountKey, int], after: int) -> None:
        self._worker_counts = worker_counts
        self._places = places  # how many this worker held then, this one included
        self._after = after  # statements made up to this number do not include it
        self._known = threading.Event()
        self._totals: dict[CountKey, int] = {}

    def totals(self, timeout: float) -> dict[CountKey, int]:
        """How many of each key all workers held together when this one had been added. Blocks.

        The order is one for all workers: of two that take the last place at once, one sees it taken.

        :raises BrokerUnavailable: when that is not known within `timeout` seconds. It is held nevertheless.
        """
        self._worker_counts.hurry()
        if not self._known.wait(timeout):
            raise BrokerUnavailable(f"the ledger did not answer in time, {timeout} s")
        return dict(self._totals)

    @property
    def here(self) -> dict[CountKey, int]:
        """How many of each key this worker held when this one had been added."""
        return dict(self._places)

    @property
    def keys(self) -> tuple[CountKey, ...]:
        """What is held."""
        return tuple(self._places)

    def release(self) -> None:
        """Gives everything back; does nothing the second time. Does not block."""
        places, self._places = self._places, {}
        self._worker_counts.add(dict.fromkeys(places, -1))

    def note(self, key: CountKey, total: int, statement: Report) -> bool:
        """Takes the ledger's total after `statement`; returns whether this one was in it."""
        if statement.number <= self._after:
            return False
        if key in self._places:
            self._totals[key] = total - statement.counts[key] + self._places[key]
            if len(self._totals) == len(self._places):
                self._known.set()
        return True


class Report(NamedTuple):
    """What is told in one call, and again when the reply was lost."""

    worker: str
    serial: int
    counts: dict[CountKey, int]
    number: int  # counts on when the worker begins anew


class WorkerCounts(StreamListener):
    """Counts of this worker. Any thread may call; only `Hold.totals` blocks. Starts on first use."""

    def __init__(self, broker_counts: Counts, streams: Callable[[], int] = lambda: 0) -> None:
        self._broker_counts = broker_counts
        self._streams = streams  # how many are open: the worker is listed while there are some
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._counts: dict[CountKey, int] = {}
        self._untold: dict[CountKey, None] = {}
        self._fresh: defaultdict[CountKey, list[Lease]] = defaultdict(list)  # not told yet
        self._hurried = threading.Event()
        self._number = 0  # of statements made
        self._later: deque[tuple[float, CountKey]] = deque()
        self._listeners: list[CountListener] = []
        self._statement: Report | None = None
        self._serial = 0
        self._renewed = 0.0  # monotonic time
        self._failed = False
        self._started = self._closed = False
        self.name = secrets.token_hex(6)

    # -- what is held -------------------------------------------------------------------------------------

    def lease(self, keys: Iterable[CountKey]) -> Lease:
        """Holds one more of each key. Does not block."""
        with self._lock:
            lease = Lease(self, self._add(dict.fromkeys(keys, 1)), self._number)
            for key in lease.keys:
                self._fresh[key].append(lease)
        self.wake()
        return lease

    def add(self, changes: Mapping[CountKey, int]) -> None:
        """Changes how many of each key this worker holds. Does not block."""
        with self._lock:
            self._add(changes)
        self.wake()

    def _add(self, changes: Mapping[CountKey, int]) -> dict[CountKey, int]:
        for key, change in changes.items():
            self._counts[key] = max(0, self._counts.get(key, 0) + change)
            self._untold[key] = None
        return {key: self._counts[key] for key in changes}

    def drop_later(self, key: CountKey, seconds: float) -> None:
        """Holds one less of `key` in `seconds`, the same for all callers. Does not block."""
        with self._lock:
            first = not self._later
            self._later.append((time.monotonic() + seconds, key))
        if first:
            self.wake()  # it may be waiting for longer

    def listen(self, listener: CountListener) -> None:
        """Registers what is told of every total that this worker's statements and burials changed, and of
        nothing now and then; called by the registry's thread."""
        self._listeners.append(listener)

    def hurry(self) -> None:
        """Has everything told now."""
        self._hurried.set()
        self.wake()

    def opened(self, stream: Stream) -> None:
        if not self._serial:
            self.wake()  # lists the worker

    def wake(self) -> None:
        """Has the thread look at what there is to tell."""
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                open_streams.append(self.unsettled)
                threading.Thread(target=self.run, name="flask-sse-push-registry", daemon=True).start()
        self._wake.set()

    def unsettled(self) -> int:
        """How much is still to be told before the process may end; 0 while the broker does not answer."""
        return 0 if self._failed else len(self._untold) + bool(self._statement)

    # -- the thread ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Tells and renews until closed. Meant to be a thread's body."""
        while not self._closed:
            self._wake.wait(self._patience(time.monotonic()))
            self._wake.clear()
            self._hurried.wait(GATHER)
            self._hurried.clear()
            try:
                if not self._closed:
                    self.settle(time.monotonic())
            except BrokerUnavailable as error:
                self._fail("the ledger is not to be had now: %s", error)
            except Exception:
                logger.exception("the registry failed, trying again")
                self._fail("", None)

    def _fail(self, message: str, error: Exception | None) -> None:
        if message and not self._failed:
            logger.warning(message, error)
        self._failed = True
        time.sleep(PAUSE * (0.5 + random.random()))
        self._wake.set()

    def _patience(self, now: float) -> float | None:
        """Seconds until something is due."""
        if not (self._counts or self._later or self._serial or self._streams()):
            return None
        due = self._renewed + RENEW
        if self._later:
            due = min(due, self._later[0][0])
        return max(0.0, due - now)

    def settle(self, now: float) -> None:
        """Tells everything there is to tell, and does what is due. Raises BrokerUnavailable."""
        self._drop_due(now)
        while self._untold or self._statement:
            self._report(now)
        if not (self._counts or self._later or self._streams()):
            if self._serial:
                self._broker_counts.retire(self.name)
                self._begin_anew()
        elif now >= self._renewed + RENEW:
            self._report(now)
        self._failed = False
        for listener in self._listeners:
            listener(())  # some have what they could not do before

    def _drop_due(self, now: float) -> None:
        with self._lock:
            while self._later and self._later[0][0] <= now:
                self._add({self._later.popleft()[1]: -1})

    def _report(self, now: float) -> None:
        statement = self._statement or self._next_statement()
        self._statement = statement
        told = self._broker_counts.report(statement.worker, statement.serial, statement.counts, LEASE)
        self._statement = None
        if not told.known:
            logger.warning("the ledger knows this worker no more; telling it everything again")
            self._begin_anew()
            return
        self._serial, self._renewed = statement.serial, now
        self._pass_on(statement, told.changes)
        for worker in told.expired:
            self._reap(worker)

    def _next_statement(self) -> Report:
        with self._lock:
            counts = {}
            for key in list(islice(self._untold, MAX_AT_ONCE)):
                del self._untold[key]
                counts[key] = self._counts.get(key, 0)
                if not counts[key]:
                    self._counts.pop(key, None)
            self._number += 1
            return Report(self.name, self._serial + 1, counts, self._number)

    def _begin_anew(self) -> None:
        """Goes on under another name, with everything still to be told."""
        with self._lock:
            self.name, self._serial, self._renewed = secrets.token_hex(6), 0, 0.0
            self._untold.update(dict.fromkeys(self._counts))

    def _pass_on(self, statement: Report, changes: Sequence[CountChange]) -> None:
        with self._lock:
            for key, _, total in changes:
                leases = self._fresh.pop(key, ())
                later = [lease for lease in leases if not lease.note(key, total, statement)]
                if later:
                    self._fresh[key] = later
        self._inform(changes)

    def _inform(self, changes: Sequence[CountChange]) -> None:
        for listener in self._listeners if changes else ():
            listener(changes)

    def _reap(self, worker: str) -> None:
        more = True
        while more:
            changes, more = self._broker_counts.reap(worker)
            self._inform(changes)

    def close(self) -> None:
        """Ends the thread; what this worker still holds falls with its lease. May be called twice."""
        self._closed = True
        self._wake.set()
        if self.unsettled in open_streams:
            open_streams.remove(self.unsettled)
        if self._serial:
            with contextlib.suppress(BrokerUnavailable):
                self._broker_counts.retire(self.name)
