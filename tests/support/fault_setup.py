"""What fault tests run: a broker that the test can kill, freeze and restart, servers with both transports,
and a publisher. `Baseline` finds leaks: it compares what workers hold before the first and after the last
client."""

from __future__ import annotations

import json
import os
import random
import resource
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import httpx
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

from .account.logs import LogAccount
from .deadline import eventually
from .processes import Gunicorn, gunicorn
from .servers import Server


class Valkey(Server):
    """A server for one test. Unless `config` says otherwise, it keeps every write on disk."""

    def __init__(self, folder: Path, **config: str) -> None:
        config = {"appendonly": "yes", "appendfsync": "always", "save": "", **config}
        options = [[f"--{name}", *(value.split() or [""])] for name, value in config.items()]
        super().__init__(folder, *chain.from_iterable(options))
        self.start()

    def empty(self) -> None:
        """Deletes its data. Call this only while it is not running."""
        for file in self.folder.rglob("*"):
            if file.is_file():
                file.unlink()


TRANSPORTS = ("hijack", "generator")


@contextmanager
def servers(
    url: str,
    folder: Path,
    *options: str,
    app: str = "tests.apps.inspected:app",
    transports: Sequence[str] = TRANSPORTS,
    workers: int = 1,
    ports: Sequence[int] = (),
    config: Path | None = None,
    **settings: Any,
) -> Iterator[list[Gunicorn]]:
    """Runs one gunicorn for each transport until the block ends. Takes more settings as keywords."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {f"SSE_PUSH_{key.upper()}": str(value) for key, value in settings.items()}

    def start(index: int) -> Gunicorn:
        own = {**env, "SSE_PUSH_BROKER_URL": url, "SSE_PUSH_TRANSPORT": transports[index]}
        optional: dict[str, Any] = {"config": config} if config else {}
        return running.enter_context(
            gunicorn(
                app,
                "--graceful-timeout",
                "15",
                *options,
                env=own,
                workers=workers,
                log=folder / f"{transports[index]}-{index}.log",
                port=ports[index] if ports else None,
                **optional,
            )
        )

    with ExitStack() as running:
        with ThreadPoolExecutor() as pool:
            started = list(pool.map(start, range(len(transports))))
        try:
            yield started
        finally:
            for server in started:
                end_at_once(server)


def end_at_once(server: Gunicorn) -> None:
    """Kills the master and its workers. Quicker than a graceful end, which no test needs here."""
    pids = server.worker_pids() if server.process.poll() is None else []
    server.process.kill()
    server.process.wait(60)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Publisher(threading.Thread):
    """Publishes at a steady rate until stopped, and notes each event in the account.

    Every second call has an id. If such a call raises, the publisher repeats it until it is acknowledged.

    :param channels: returns the channels of an event, given its serial number.
    :param rate: events per second.
    :param size: bytes of padding in each event.
    :param many: events in one call of `publish_many`.
    :param first: the first serial number.
    """

    def __init__(
        self,
        url: str,
        account: LogAccount,
        channels: Callable[[int], Sequence[str]],
        *,
        rate: float,
        size: int = 150,
        many: int = 1,
        first: int = 0,
        **config: Any,
    ) -> None:
        super().__init__(daemon=True)
        self._announcer = MessageAnnouncer.from_url(url, **config)
        self._account = account
        self._channels = channels
        self._rate = rate
        self._pad = "x" * size
        self._many = many
        self._next = first
        self._token = secrets.token_hex(4)
        self._stopped = threading.Event()
        self.failures = 0
        self.slowest = 0.0  # seconds of the slowest call

    def run(self) -> None:
        next_at = time.monotonic()
        while not self._stopped.is_set():
            next_at = max(next_at + self._many / self._rate, time.monotonic() - 0.05)
            serials = range(self._next, self._next + self._many)
            self._next += self._many
            self._publish(serials)
            self._stopped.wait(max(0.0, next_at - time.monotonic()))
        self._announcer.close()

    def _publish(self, serials: range) -> None:
        events = [{"data": self._data(n), "channel": list(self._channels(n))} for n in serials]
        has_id = serials[0] % 2 == 0
        while True:
            began = time.monotonic()
            for n in serials:
                self._account.sent[n] = began
            try:
                cursors = self._announcer.publish_many(
                    events, id=f"{self._token}-{serials[0]}" if has_id else None
                )
            except BrokerUnavailable:
                self.failures += 1
                if has_id and not self._stopped.wait(0.05):
                    continue
                for n in serials:
                    self._account.doubt(self._channels(n), n)
            else:
                for n, cursor in zip(serials, cursors, strict=True):
                    self._account.note(cursor, self._channels(n), n)
            finally:
                self.slowest = max(self.slowest, time.monotonic() - began)
            return

    def _data(self, n: int) -> str:
        return json.dumps({"n": n, "pad": self._pad})

    def stop(self) -> None:
        """Stops publishing when the current call has returned, and waits for that."""
        self._stopped.set()
        self.join(30)


def stored(url: str, channels: Sequence[str], prefix: str = "sse") -> list[int]:
    """The serial numbers of the events in the broker's lists; twice if an event is stored twice."""
    with redis.Redis.from_url(url) as client:
        entries = [
            entry for name in channels for entry in client.lrange(f"{{{prefix}:0}}:list:{name}", 0, -1)
        ]
    return stored_serials(entries)


def stored_serials(entries: Iterable[bytes]) -> list[int]:
    """The serial numbers of stored entries. Their data is JSON with the serial number under `n`."""
    serials = []
    for line in (line for entry in entries for line in entry.split(b"\n") if line.startswith(b"data: ")):
        with suppress(ValueError, KeyError, TypeError):
            serials.append(int(json.loads(line[6:])["n"]))
    return serials


# -- leaks -------------------------------------------------------------------------------------------


def look_inside(server: Gunicorn, workers: int, view: str = "inspect") -> dict[int, dict[str, Any]]:
    """What each worker of `tests.apps.inspected` holds, by pid: streams, files and so on.

    :param view: the view that is asked; `memory` returns numbers about memory only.
    """
    seen: dict[int, dict[str, Any]] = {}

    def ask() -> bool:
        with suppress(httpx.HTTPError), httpx.Client(timeout=60, trust_env=False, verify=False) as http:
            held = http.get(f"{server.url}/{view}", headers={"Connection": "close"}).json()
            seen[held["pid"]] = held
        return set(server.worker_pids()) <= seen.keys() and len(seen) >= workers

    eventually(ask, 20, every=0.005)
    return {pid: seen[pid] for pid in server.worker_pids()}


def visit_all(server: Gunicorn, workers: int) -> None:
    """Opens streams until each worker has had one, then closes them all."""
    visitors: list[socket.socket] = []

    def visited() -> bool:
        visitor = socket.create_connection(("127.0.0.1", server.port), 60)
        visitor.sendall(b"GET /stream?channels=visit HTTP/1.1\r\nHost: test\r\n\r\n")
        visitors.append(visitor)
        return all(held["probed_ago"] is not None for held in look_inside(server, workers).values())

    try:
        eventually(visited, 20, every=0.01)
    finally:
        for visitor in visitors:
            visitor.close()


@dataclass
class Baseline:
    """What the workers held before the first client. A leak is what they hold in addition at the end."""

    servers: Sequence[Gunicorn]
    workers: int
    before: Mapping[int, Mapping[str, Any]]

    @classmethod
    def take(cls, servers: Sequence[Gunicorn], workers: int = 1) -> Baseline:
        """Opens and closes a stream at each worker, which starts its threads. Then notes what it holds."""
        for server in servers:
            visit_all(server, workers)
        baseline = cls(servers, workers, {})
        assert not baseline.leaks()
        held = {pid: held for server in servers for pid, held in look_inside(server, workers).items()}
        return cls(servers, workers, held)

    def leaks(self, broker: redis.Redis | None = None, seconds: float = 10.0) -> dict[str, int]:
        """What is left after `seconds`: streams, groups, channels, greenlets, files and subscriptions."""
        found: dict[str, int] = {}

        def none() -> bool:
            found.clear()
            for server in self.servers:
                for pid, held in look_inside(server, self.workers).items():
                    self._compare(held, self.before.get(pid) or self._limits(), found)
            if broker is not None:
                names = broker.pubsub_channels("*:live:*")
                found.update({"subscriptions": len(names)} if names else {})
            return not found

        with suppress(AssertionError):
            eventually(none, seconds, every=0.2)
        return dict(found)

    def _limits(self) -> Mapping[str, Any]:
        """The most that a worker may hold that started after `take`. Unlimited while `take` itself runs."""
        keys = ("greenlets", "files")
        return {key: max((held[key] for held in self.before.values()), default=inf) for key in keys}

    def _compare(self, held: Mapping[str, Any], before: Mapping[str, Any], found: dict[str, int]) -> None:
        for key in ("streams", "groups", "channels"):
            if held[key]:
                found[key] = found.get(key, 0) + held[key]
        for key in ("greenlets", "files"):
            if held[key] > before[key]:
                found[key] = found.get(key, 0) + held[key] - before[key]


def some_of(chance: random.Random, names: Sequence[str], count: int) -> frozenset[str]:
    """Picks `count` of the channels at random."""
    return frozenset(chance.sample(list(names), count))


def allow_files(count: int) -> None:
    """Lets this process, and the processes that it starts, open `count` files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
