"""The ledger on Redis or Valkey.

Keys, all under the broker's hash tag: `{prefix:0}:workers`, `{prefix:0}:held:<worker>`,
`{prefix:0}:count:<table>`, `{prefix:0}:answer:<ticket>`. They live as long as somebody is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import islice
from typing import Any

import redis

from ..counts import ANSWERS_KEPT, MAX_AT_ONCE, CountChange, CountKey, Counts, ReportReply

#: Runs an idempotent command within the broker's time; its errors are BrokerUnavailable.
Call = Callable[[Callable[[], Any]], Any]


def _script(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"counts_{name}.lua").read_text("utf-8")


class RedisCounts(Counts):
    """Works with the broker's client: its connections, its time limits.

    :param base: begins every key, e.g. `{sse:0}:`.
    """

    def __init__(self, client: redis.Redis, base: str, call: Call) -> None:
        self._client: Any = client
        self._base = base
        self._call = call
        self._report = client.register_script(_script("report"))
        self._reap = client.register_script(_script("reap"))

    def report(self, worker: str, serial: int, counts: Mapping[CountKey, int], lease: float) -> ReportReply:
        tables = _numbered(counts)
        keys = [*self._worker_keys(worker), *map(self._table, tables)]
        args: list[Any] = [worker, serial, max(1, round(lease * 1000))]
        for key, count in counts.items():
            args += [tables[key.table], key.table, key.name, count]
        known, totals, expired = self._call(lambda: self._report(keys=keys, args=args))
        if not known:
            return ReportReply(False, [], [])
        return ReportReply(True, _changes(counts, totals), [name.decode() for name in expired])

    def reap(self, worker: str) -> tuple[list[CountChange], bool]:
        held = self._base + "held:" + worker
        found = self._call(
            lambda: list(islice(self._client.hscan_iter(held, count=MAX_AT_ONCE), MAX_AT_ONCE))
        )
        keys = [CountKey(*field.decode().split("\n", 1)) for field, _ in found if b"\n" in field]
        return self._take_off(worker, keys, retired=False)

    def retire(self, worker: str) -> None:
        self._take_off(worker, [], retired=True)

    def _take_off(
        self, worker: str, keys: Sequence[CountKey], *, retired: bool
    ) -> tuple[list[CountChange], bool]:
        tables = _numbered(keys)
        names = [*self._worker_keys(worker), *map(self._table, tables)]
        args: list[Any] = [worker, int(retired)]
        for key in keys:
            args += [tables[key.table], key.table, key.name]
        gone, totals = self._call(lambda: self._reap(keys=names, args=args))
        changes = _changes(keys, totals) if totals else []
        return [change for change in changes if change.before], not gone

    def workers(self) -> list[str]:
        def ask() -> Any:
            seconds, _ = self._client.time()
            return self._client.zrangebyscore(self._base + "workers", f"({seconds * 1000}", "+inf")

        return [name.decode() for name in self._call(ask)]

    def totals(self, keys: Sequence[CountKey]) -> list[int]:
        def ask() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hget(self._table(key.table), key.name)
                return pipe.execute()

        return [int(total or 0) for total in self._call(ask)]

    def size(self, table: str) -> int:
        return int(self._call(lambda: self._client.hlen(self._table(table))))

    def names(self, table: str, most: int) -> list[str]:
        def ask() -> Any:
            return list(islice(self._client.hscan_iter(self._table(table), count=most), most))

        return [name.decode() for name, _ in self._call(ask)] if most > 0 else []

    def answer(self, ticket: str, parts: Sequence[bytes]) -> None:
        key = self._base + "answer:" + ticket

        def hand_in() -> Any:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.rpush(key, *parts)
                pipe.expire(key, round(ANSWERS_KEPT))
                return pipe.execute()

        self._call(hand_in)

    def answers(self, ticket: str, since: int) -> list[bytes]:
        return list(self._call(lambda: self._client.lrange(self._base + "answer:" + ticket, since, -1)))

    def _worker_keys(self, worker: str) -> tuple[str, str]:
        return self._base + "workers", self._base + "held:" + worker

    def _table(self, table: str) -> str:
        return f"{self._base}count:{table}"


def _numbered(keys: Iterable[CountKey]) -> dict[str, int]:
    """The tables of `keys`, each with its number from 1."""
    return {table: at for at, table in enumerate(dict.fromkeys(key.table for key in keys), 1)}


def _changes(keys: Iterable[CountKey], totals: Sequence[int]) -> list[CountChange]:
    pairs = zip(totals[::2], totals[1::2], strict=True)
    return [CountChange(key, before, after) for key, (before, after) in zip(keys, pairs, strict=True)]
