"""The counts of all workers, kept on Redis or Valkey.

Keys, all under the broker's hash tag: `{prefix:0}:workers`, `{prefix:0}:held:<worker>` (the
counts of one worker), `{prefix:0}:count:<table>` (totals), `{prefix:0}:answer:<query>` (replies to a query).
A key is deleted with its last count. The replies to a query expire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import islice
from typing import Any

from ..counts import MAX_COUNTS, REPLIES_KEPT, CountChange, CountKey, Counts, ReportReply
from .client import Call, Clients, milliseconds


def _script(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"counts_{name}.lua").read_text("utf-8")


class RedisCounts(Counts):
    """The counts on Redis. Uses the connections and time limits of the broker.

    :param base: prefix of every key, such as `{sse:0}:`.
    """

    def __init__(self, clients: Clients, base: str, call: Call) -> None:
        self._clients = clients
        self._base = base
        self._call = call
        self._report_script = clients.main.register_script(_script("report"))
        self._reap_script = clients.main.register_script(_script("reap"))

    @property
    def _client(self) -> Any:
        return self._clients.current

    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        tables = _numbered_tables(counts)
        keys = [*self._worker_keys(worker), *map(self._table, tables)]
        args: list[Any] = [worker, serial, milliseconds(lease)]
        for key, count in counts.items():
            args += [tables[key.table], key.table, key.name, count]
        known, totals, expired = self._call(
            lambda: self._report_script(keys=keys, args=args, client=self._client)
        )
        if not known:
            return ReportReply(False, [], [])
        return ReportReply(True, _changes(counts, totals), [name.decode() for name in expired])

    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        held = self._scan(self._base + "held:" + worker, MAX_COUNTS)
        keys = [CountKey(*field.decode().split("\n", 1)) for field in held if b"\n" in field]
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
        gone, totals = self._call(lambda: self._reap_script(keys=keys, args=args, client=self._client))
        changes = _changes(counts, totals) if totals else []
        return [change for change in changes if change.before], not gone

    def workers(self) -> list[str]:
        def read() -> Any:
            seconds, _ = self._client.time()
            return self._client.zrangebyscore(self._base + "workers", f"({seconds * 1000}", "+inf")

        return [name.decode() for name in self._call(read)]

    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        def read() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hget(self._table(key.table), key.name)
                return pipe.execute()

        return [int(total or 0) for total in self._call(read)]

    def size(self, table: str) -> int:
        return int(self._call(lambda: self._client.hlen(self._table(table))))

    def names(self, table: str, most: int) -> list[str]:
        return [name.decode() for name in self._scan(self._table(table), most)] if most > 0 else []

    def add_replies(self, query: str, parts: Sequence[bytes]) -> None:
        key = self._base + "answer:" + query

        def add() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.rpush(key, *parts)
                pipe.expire(key, round(REPLIES_KEPT))
                return pipe.execute()

        self._call(add)

    def replies(self, query: str, since: int) -> list[bytes]:
        return list(self._call(lambda: self._client.lrange(self._base + "answer:" + query, since, -1)))

    def _scan(self, key: str, most: int) -> list[bytes]:
        """Returns the names of at most `most` fields of the hash at `key`."""
        found = self._call(lambda: list(islice(self._client.hscan_iter(key, count=most), most)))
        return [field for field, _ in found]

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
