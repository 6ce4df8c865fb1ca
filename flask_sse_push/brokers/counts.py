"""Counts over all workers: each worker reports how many it holds, and its counts end with it.

A count belongs to a table and a name, e.g. the table `user` and the name `7`. The total is the sum over the
workers. A worker that does not renew its lease counts as dead: another worker then reaps it, which takes its
counts off the totals. So reading a total costs the same for any number of streams and workers, and a killed
worker leaves no counts behind.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Counts in one call: they keep the broker busy for about a millisecond.
MAX_COUNTS = 200
#: Seconds that the workers' replies to a query are kept.
REPLIES_KEPT = 30.0


class CountKey(NamedTuple):
    """What is counted. `table` contains no line end."""

    table: str
    name: str


class CountChange(NamedTuple):
    """How a total changed."""

    key: CountKey
    before: int
    after: int


class ReportReply(NamedTuple):
    """The reply to a worker's report.

    `known` is false when the broker has none of the worker's earlier reports: it lost its data, or the worker
    was reaped. Then the report was not stored, and the worker starts again under a new name.
    """

    known: bool
    changes: list[CountChange]
    expired: list[str]  # workers that did not renew their lease


class Counts(ABC):
    """Any thread may call. Each call blocks at most as long as one of the broker's, and raises
    BrokerUnavailable as those do."""

    @abstractmethod
    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        """Stores how many of each key `worker` holds, and renews its lease, in one atomic step.

        :param serial: 1 for a worker's first report, then one more each time. A repeated serial changes
            nothing and returns the same changes again.
        :param counts: at most MAX_COUNTS absolute numbers; keys that are not named keep theirs.
        :param lease: seconds until the worker counts as dead.
        """

    @abstractmethod
    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        """Takes up to MAX_COUNTS counts of a dead worker off the totals; does nothing if its lease holds.

        :returns: the changes, and whether more counts are left.
        """

    @abstractmethod
    def retire(self, worker: str) -> None:
        """Forgets a worker before its lease ends, if it holds nothing."""

    @abstractmethod
    def workers(self) -> list[str]:
        """The workers whose leases hold."""

    @abstractmethod
    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        """How many of each key all workers hold together."""

    @abstractmethod
    def size(self, table: str) -> int:
        """How many names of the table have a count; costs the same for any number."""

    @abstractmethod
    def names(self, table: str, most: int) -> list[str]:
        """Up to `most` names of the table that have a count, in no particular order."""

    @abstractmethod
    def add_replies(self, query: str, parts: Sequence[bytes]) -> None:
        """Adds parts of a worker's reply to a query; they are kept for REPLIES_KEPT seconds."""

    @abstractmethod
    def replies(self, query: str, since: int) -> list[bytes]:
        """The parts of all replies to `query` so far, from number `since` on."""


class _Held:
    """What one worker reported."""

    def __init__(self) -> None:
        self.serial = 0
        self.until = 0.0
        self.counts: dict[CountKey, int] = {}
        self.changes: list[CountChange] = []  # by the last report


class MemoryCounts(Counts):
    """The counts of the memory broker, for one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, _Held] = {}
        self._tables: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._replies: dict[str, tuple[float, list[bytes]]] = {}

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
            held.serial = -1  # should the worker wake up, its next report is refused
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
