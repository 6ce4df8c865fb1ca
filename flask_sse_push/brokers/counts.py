"""Counts over all workers, such as the number of streams of each user.

A count belongs to a table and a name, such as the table `user` and the name `7`. Each worker reports its own
counts, and the broker adds them up to totals. A report is valid for a limited time, the worker's lease. A
worker that does not report again before its lease expires is regarded as dead. Another worker then reaps it:
the counts of the dead worker are subtracted from the totals. So a killed worker leaves no counts behind, and
reading a total takes the same time for any number of streams and workers.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import forks, native_threads

#: At most this many counts in one call. Storing this many takes the broker about a millisecond.
MAX_COUNTS = 200
#: How long the workers' replies to a query are kept, in seconds.
REPLIES_KEPT = 30.0


class CountKey(NamedTuple):
    """The table and the name that a count belongs to. `table` contains no line end."""

    table: str
    name: str


class CountChange(NamedTuple):
    """A total before and after a worker's report, or before and after `Counts.reap`."""

    key: CountKey
    before: int
    after: int


class ReportReply(NamedTuple):
    """The broker's reply to a report of a worker.

    `known` is False if the broker does not have the worker's earlier reports: the broker lost its data, or
    the worker was regarded as dead (see `Counts.reap`). The report is then not stored, and the worker starts
    again under a new name.
    """

    known: bool
    changes: list[CountChange]
    expired: list[str]  # the workers that did not report again before their leases expired


class Counts(ABC):
    """The counts of all workers, kept in the broker.

    Any thread may call the methods. Each call blocks at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds, and raises
    BrokerUnavailable if the broker does not reply in time.
    """

    @abstractmethod
    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        """Stores counts of `worker` and renews the worker's lease, in one atomic step.

        :param serial: the number of the report: 1 for the first report of a worker, then 2, 3 and so on. A
            second report with the same number changes nothing and returns the same changes again.
        :param counts: at most MAX_COUNTS new counts, not differences. Keys that are left out keep their
            counts.
        :param lease: seconds until the worker is regarded as dead if it does not report again.
        """

    @abstractmethod
    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        """Subtracts at most MAX_COUNTS counts of a dead worker from the totals.

        Does nothing if the worker's lease has not expired.

        :returns: first the changes, then whether the dead worker still has counts.
        """

    @abstractmethod
    def retire(self, worker: str) -> None:
        """Forgets a worker before its lease expires. Does nothing if the worker still has counts."""

    @abstractmethod
    def workers(self) -> list[str]:
        """Returns the names of the workers whose leases have not expired."""

    @abstractmethod
    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        """Returns the total of each key over all workers, in the order of `keys`."""

    @abstractmethod
    def size(self, table: str) -> int:
        """Returns how many names of the table have a count. Takes the same time for any number of names."""

    @abstractmethod
    def names(self, table: str, most: int) -> list[str]:
        """Returns at most `most` names of the table that have a count, in any order."""

    @abstractmethod
    def add_replies(self, query: str, parts: Sequence[bytes]) -> None:
        """Adds parts of a worker's reply to a query. The parts are kept for REPLIES_KEPT seconds."""

    @abstractmethod
    def replies(self, query: str, since: int) -> list[bytes]:
        """Returns the parts of all replies to `query` so far, except the first `since` parts."""


class _Held:
    """The counts that one worker has reported, and until when its lease lasts."""

    def __init__(self) -> None:
        self.serial = 0
        self.until = 0.0
        self.counts: dict[CountKey, int] = {}
        self.changes: list[CountChange] = []  # the changes that the last report made


class MemoryCounts(Counts):
    """The counts of the memory broker, which serves one process only."""

    def __init__(self) -> None:
        self._lock = native_threads.lock()
        forks.watch(self)
        self._workers: dict[str, _Held] = {}
        self._tables: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._replies: dict[str, tuple[float, list[bytes]]] = {}

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        self._lock = native_threads.lock()

    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        now = time.monotonic()
        with self._lock:
            held = self._workers.get(worker) or _Held()
            if held.serial not in (serial, serial - 1):
                return ReportReply(False, [], [])
            self._workers[worker] = held
            held.until = now + lease
            if held.serial != serial:
                held.serial = serial
                held.changes = [self._set(held, key, count) for key, count in counts.items()]
            expired = [name for name, other in self._workers.items() if other.until <= now]
            return ReportReply(True, held.changes, expired)

    def _set(self, held: _Held, key: CountKey, count: int) -> CountChange:
        table = self._tables[key.table]
        before = table.get(key.name, 0)
        after = before + count - held.counts.get(key, 0)
        held.counts[key] = count
        table[key.name] = after
        if not count:
            del held.counts[key]
        if not after:
            del table[key.name]
        if not table:
            del self._tables[key.table]
        return CountChange(key, before, after)

    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        with self._lock:
            held = self._workers.get(worker)
            if held is None or held.until > time.monotonic():
                return [], False
            held.serial = -1  # if the worker is alive after all, its next report is refused
            changes = [self._set(held, key, 0) for key in list(held.counts)[:MAX_COUNTS]]
            if not held.counts:
                del self._workers[worker]
            return changes, bool(held.counts)

    def retire(self, worker: str) -> None:
        with self._lock:
            if worker in self._workers and not self._workers[worker].counts:
                del self._workers[worker]

    def workers(self) -> list[str]:
        now = time.monotonic()
        with self._lock:
            return [name for name, held in self._workers.items() if held.until > now]

    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        with self._lock:
            return [self._tables.get(key.table, {}).get(key.name, 0) for key in keys]

    def size(self, table: str) -> int:
        with self._lock:
            return len(self._tables.get(table, ()))

    def names(self, table: str, most: int) -> list[str]:
        with self._lock:
            return list(self._tables.get(table, ()))[:most]

    def add_replies(self, query: str, parts: Sequence[bytes]) -> None:
        now = time.monotonic()
        with self._lock:
            self._replies = {name: kept for name, kept in self._replies.items() if kept[0] > now}
            self._replies.setdefault(query, (now + REPLIES_KEPT, []))[1].extend(parts)

    def replies(self, query: str, since: int) -> list[bytes]:
        with self._lock:
            return self._replies.get(query, (0.0, []))[1][since:]
