"""Who holds what, over all workers: counts that each worker writes down for itself and that die with it.

A count belongs to a table and a name, e.g. the table `user` and the name `7`. Each worker states how many it
holds; the total is the sum over the workers. A worker that does not renew its lease is buried: somebody else
takes its counts off the totals. So reading a total costs the same however many streams and workers there are,
and nothing is left of a worker that was killed.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Counts in one call: what keeps the broker busy for about a millisecond.
MAX_AT_ONCE = 200
#: Seconds that the answers of workers are kept for whoever asked.
ANSWERS_KEPT = 30.0


class CountKey(NamedTuple):
    """What is counted. `table` holds no line end."""

    table: str
    name: str


class CountChange(NamedTuple):
    """How a total changed."""

    key: CountKey
    before: int
    after: int


class ReportReply(NamedTuple):
    """The answer to a worker's statement.

    `known` is false when the ledger knows nothing of its statements before: it lost its data, or the worker
    was buried. Then nothing was written, and the worker begins anew under another name.
    """

    known: bool
    changes: list[CountChange]
    expired: list[str]  # workers that did not renew their lease


class Counts(ABC):
    """Any thread may call; each call blocks at most as long as one of the broker's, and raises
    BrokerUnavailable as they do."""

    @abstractmethod
    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        """Writes down how many of each key `worker` holds, and renews its lease; one atomic step.

        :param serial: 1 for a worker's first statement, then one more each time. The same one again changes
            nothing and gets the same changes.
        :param counts: at most MAX_AT_ONCE absolute numbers; what is not named stays.
        :param lease: seconds until the worker counts as dead.
        """

    @abstractmethod
    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        """Takes up to MAX_AT_ONCE counts of a dead worker off the totals.

        :returns: the changes, and whether more is left. Nothing when it is alive after all.
        """

    @abstractmethod
    def retire(self, worker: str) -> None:
        """Lets a worker that holds nothing go before its lease ends; one that holds something stays."""

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
    def answer(self, ticket: str, parts: Sequence[bytes]) -> None:
        """Hands in parts of an answer to whoever asked under `ticket`; kept for ANSWERS_KEPT seconds."""

    @abstractmethod
    def answers(self, ticket: str, since: int) -> list[bytes]:
        """The parts handed in under `ticket` so far, from number `since` on."""


class _Held:
    """What one worker stated."""

    def __init__(self) -> None:
        self.serial = 0
        self.until = 0.0
        self.counts: dict[CountKey, int] = {}
        self.changes: list[CountChange] = []  # of the last statement


class MemoryCounts(Counts):
    """The ledger of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, _Held] = {}
        self._tables: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._answers: dict[str, tuple[float, list[bytes]]] = {}

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
            held.serial = -1  # it must not go on as if nothing had happened
            changes = [self._set(held, key, 0) for key in list(held.counts)[:MAX_AT_ONCE]]
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

    def answer(self, ticket: str, parts: Sequence[bytes]) -> None:
        now = time.monotonic()
        with self._lock:
            self._answers = {name: kept for name, kept in self._answers.items() if kept[0] > now}
            self._answers.setdefault(ticket, (now + ANSWERS_KEPT, []))[1].extend(parts)

    def answers(self, ticket: str, since: int) -> list[bytes]:
        with self._lock:
            return self._answers.get(ticket, (0.0, []))[1][since:]
