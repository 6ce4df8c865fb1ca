"""The counts of all workers, kept on Redis or Valkey.

Keys, all under the broker's hash tag: `{prefix:0}:workers`, `{prefix:0}:held:<worker>` (the
counts of one worker), `{prefix:0}:count:<table>` (totals), `{prefix:0}:answer:<query>` (replies to a query).
A key is deleted with its last count. The replies to a query expire.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

from ..counts import MAX_COUNTS, REPLIES_KEPT, CountChange, CountKey, Counts, ReportReply
from ..foreign import ForeignData
from .client import Call, Clients, is_wrong_type, milliseconds, translated_errors
from .scripts import script

_WORKER = re.compile(rb"[A-Za-z0-9_-]{1,100}")
_TOTAL = re.compile(rb"[0-9]{1,15}")
#: Fields of a worker's counts that are not counts.
_OWN_FIELDS = b"", b"="


class RedisCounts(Counts):
    """The counts on Redis. Uses the connections and time limits of the broker.

    :param base: prefix of every key, such as `{sse:0}:`.
    :param foreign: reports keys that another program has written.
    """

    def __init__(self, clients: Clients, base: str, call: Call, foreign: ForeignData) -> None:
        self._clients = clients
        self._foreign = foreign
        self._base = base
        self._call = call
        self._report_script = clients.main.register_script(script("counts", "counts_report"))
        self._reap_script = clients.main.register_script(script("counts", "counts_reap"))

    @property
    def _client(self) -> Any:
        return self._clients.current

    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        tables = _numbered_tables(counts)
        keys = [*self._worker_keys(worker), *map(self._table, tables)]
        args: list[Any] = [worker, serial, milliseconds(lease)]
        for key, count in counts.items():
            args += [tables[key.table], key.table, key.name, count]
        known, totals, expired, foreign = self._call(
            lambda: self._report_script(keys=keys, args=args, client=self._client)
        )
        self._foreign.report_all(foreign)
        if not known:
            return ReportReply(False, [], [])
        return ReportReply(True, _changes(counts, totals), [name.decode() for name in expired])

    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        held = self._base + "held:" + worker
        keys, damaged = [], []
        for field in self._scan(held, MAX_COUNTS):
            try:
                keys.append(CountKey(*field.decode().split("\n", 1)))
            except (TypeError, ValueError):
                damaged.append(field)
        damaged = [field for field in damaged if field not in _OWN_FIELDS]
        if damaged:
            self._foreign.report(held, "it contains something that is not a count")
            self._call(lambda: self._client.hdel(held, *damaged))
        return self._take_off(worker, keys, retired=False)

    def retire(self, worker: str) -> None:
        self._take_off(worker, [], retired=True)

    def _take_off(
        self, worker: str, counts: Sequence[CountKey], *, retired: bool
    ) -> tuple[list[CountChange], bool]:
        tables = _numbered_tables(counts)
        keys = [*self._worker_keys(worker), *map(self._table, tables)]
        args: list[Any] = [worker, int(retired)]
        for key in counts:
            args += [tables[key.table], key.table, key.name]
        gone, totals, foreign = self._call(
            lambda: self._reap_script(keys=keys, args=args, client=self._client)
        )
        self._foreign.report_all(foreign)
        changes = _changes(counts, totals) if totals else []
        return [change for change in changes if change.before], not gone

    def workers(self) -> list[str]:
        key = self._base + "workers"

        def read() -> Any:
            seconds, _ = self._client.time()
            return self._client.zrangebyscore(key, f"({seconds * 1000}", "+inf")

        return [name.decode() for name in self._read(key, read, []) if _WORKER.fullmatch(name)]

    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        def read() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hget(self._table(key.table), key.name)
                return pipe.execute(raise_on_error=False)

        return [self._total(key, total) for key, total in zip(keys, self._call(read), strict=True)]

    def _total(self, key: CountKey, total: Any) -> int:
        if total is None:
            return 0
        if isinstance(total, bytes) and _TOTAL.fullmatch(total):
            return int(total)
        if isinstance(total, Exception) and not is_wrong_type(total):
            with translated_errors():
                raise total
        self._foreign.report(self._table(key.table), f"the total of {key.name} is not a number")
        return 0

    def size(self, table: str) -> int:
        key = self._table(table)
        return int(self._read(key, lambda: self._client.hlen(key), 0))

    def names(self, table: str, most: int) -> list[str]:
        names = []
        for name in self._scan(self._table(table), most) if most > 0 else ():
            with contextlib.suppress(UnicodeDecodeError):  # no worker has reported such a name
                names.append(name.decode())
        return names

    def add_replies(self, query: str, parts: Sequence[bytes]) -> None:
        key = self._base + "answer:" + query

        def add() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.rpush(key, *parts)
                pipe.expire(key, round(REPLIES_KEPT))
                return pipe.execute()

        self._read(key, add, None)

    def replies(self, query: str, since: int) -> list[bytes]:
        key = self._base + "answer:" + query
        return list(self._read(key, lambda: self._client.lrange(key, since, -1), []))

    def _scan(self, key: str, most: int) -> list[bytes]:
        """Returns the names of at most `most` fields of the hash at `key`."""

        def scan() -> list[tuple[bytes, bytes]]:
            return list(islice(self._client.hscan_iter(key, count=most), most))

        return [field for field, _ in self._read(key, scan, [])]

    def _read(self, key: str, command: Callable[[], Any], default: Any) -> Any:
        """Runs a command that uses a key. Returns `default` if the key has a wrong type."""

        def run() -> Any:
            try:
                return command()
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise
                self._foreign.report(key, str(error))
                return default

        return self._call(run)

    def _worker_keys(self, worker: str) -> tuple[str, str]:
        return self._base + "workers", self._base + "held:" + worker

    def _table(self, table: str) -> str:
        return f"{self._base}count:{table}"


def _numbered_tables(keys: Iterable[CountKey]) -> dict[str, int]:
    """Returns the tables of `keys`, numbered 1, 2, 3 and so on."""
    return {table: at for at, table in enumerate(dict.fromkeys(key.table for key in keys), 1)}


def _changes(keys: Iterable[CountKey], totals: Sequence[int]) -> list[CountChange]:
    """Returns how the total of each key changed. `totals` has two numbers for each key: before and after."""
    pairs = zip(totals[::2], totals[1::2], strict=True)
    return [CountChange(key, before, after) for key, (before, after) in zip(keys, pairs, strict=True)]
