"""What clients get through the outbox while relays, publishers and the broker are killed.

`make outbox-figures` makes 10,000 transactions with 8 processes. `make test` makes fewer.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from flask_sse_push import MessageAnnouncer
from flask_sse_push.outbox import Outbox
from tests.support import outbox_load
from tests.support.databases import postgresql
from tests.support.deadline import eventually, stretched
from tests.support.fault_setup import Valkey, servers
from tests.support.flask_process import FlaskProcess
from tests.support.measurements import Measurements, percentile
from tests.support.outbox_load import CHANNELS
from tests.support.processes import ROOT
from tests.support.stream import Received, Stream

APP = "tests.apps.orders"
TRANSACTIONS = int(os.environ.get("OUTBOX_TRANSACTIONS", "300"))
PROCESSES = int(os.environ.get("OUTBOX_PROCESSES", "2"))
#: Relays, publishers and the broker are killed in turn, in a random order.
KILLS = int(os.environ.get("OUTBOX_KILLS", "3"))
#: How many commits the delay is measured with, and how many events the rate.
COMMITS = int(os.environ.get("OUTBOX_COMMITS", "60"))
EVENTS = int(os.environ.get("OUTBOX_EVENTS", "2000"))
#: The channel and the type of the events by which the rate is measured.
BULK = "bulk"


class Reader:
    """Reads a stream of all channels, as a browser does. Use as a context manager."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/stream?channels={','.join([*CHANNELS, BULK])}"
        self.got: dict[str, list[int]] = {name: [] for name in CHANNELS}
        self.arrivals: dict[tuple[str, int], float] = {}
        self.bulk: list[int] = []
        self.resets = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._open, self._closed = threading.Event(), False

    def __enter__(self) -> Reader:
        self._thread.start()
        assert self._open.wait(120)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed = True
        self._thread.join(120)

    def __len__(self) -> int:
        return len(self.arrivals)

    def _read(self) -> None:
        with Stream(self._url, timeout=120) as stream:
            while not self._closed:
                self._take(stream.next())

    def _take(self, event: Received) -> None:
        self._open.set()
        if event.type == "sse.reset":
            self.resets += 1
        elif event.type == "count":
            data = event.json()
            self.got[data["channel"]].append(data["n"])
            self.arrivals[data["channel"], data["n"]] = time.time()
        elif event.type == BULK:
            self.bulk.append(int(event.data))


class Payers:
    """Processes that make transactions. A killed process is replaced by one that makes the rest."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = {**os.environ, **env}
        self._running: dict[subprocess.Popen[bytes], int] = {}
        self.done = 0

    def start(self, transactions: int, seed: int) -> None:
        command = [sys.executable, "-m", "tests.support.outbox_load", str(transactions), str(seed)]
        process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=subprocess.PIPE)
        self._running[process] = transactions
        threading.Thread(target=self._count, args=(process,), daemon=True).start()

    def _count(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for _ in lines:
                self.done += 1
                self._running[process] -= 1

    def kill_one(self, chance: random.Random) -> None:
        running = [process for process in self._running if process.poll() is None]
        if running:
            process = chance.choice(running)
            process.kill()
            process.wait()
            self.start(self._running.pop(process), chance.randrange(10**6))

    def have_ended(self) -> bool:
        codes = {process.poll() for process in self._running}
        assert codes <= {0, None}
        return codes == {0}

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


class Relays:
    """Two commands `flask sse relay`, of which one works."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = {"FLASK_APP": APP, **env}
        self._running = [self._start(), self._start()]

    def _start(self) -> FlaskProcess:
        return FlaskProcess("sse", "relay", env=self._env)

    def kill_one(self, chance: random.Random) -> None:
        at = chance.randrange(2)
        self._running[at].send_signal(signal.SIGKILL)
        self._running[at].wait(60)
        self._running[at] = self._start()

    def close(self) -> None:
        for relay in self._running:
            relay.send_signal(signal.SIGTERM)
            relay.wait(60)


@pytest.fixture
def env(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of the app. The database is a real PostgreSQL, which keeps every commit on disk."""
    with postgresql() as url:
        engine = create_engine(url)
        outbox_load.create(engine)
        Outbox(engine).create_all()
        engine.dispose()
        settings = {"DATABASE_URL": url, "SSE_PUSH_BROKER_URL": valkey.url, "SSE_PUSH_HISTORY_SIZE": "100000"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield settings


@pytest.fixture
def relays(env: dict[str, str]) -> Iterator[Relays]:
    relays = Relays(env)
    yield relays
    relays.close()


@pytest.fixture
def payers(env: dict[str, str]) -> Iterator[Payers]:
    payers = Payers(env)
    yield payers
    payers.close()


@pytest.fixture
def outbox(env: dict[str, str]) -> Iterator[Outbox]:
    engine = create_engine(env["DATABASE_URL"])
    announcer = MessageAnnouncer.from_url(env["SSE_PUSH_BROKER_URL"])
    yield Outbox(engine, announcer)
    announcer.close()
    engine.dispose()


@pytest.fixture
def reader(env: dict[str, str], valkey: Valkey, tmp_path: Path) -> Iterator[Reader]:
    with (
        servers(valkey.url, tmp_path / "web", app=f"{APP}:app", transports=["hijack"], heartbeat=0.5) as (
            server,
        ),
        Reader(server.url) as reader,
    ):
        yield reader


def counters(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return outbox_load.read(connection)


def test_committed_events_arrive_once_in_order_and_soon_whatever_is_killed(
    outbox: Outbox,
    reader: Reader,
    relays: Relays,
    payers: Payers,
    valkey: Valkey,
    chance: random.Random,
    measurements: Measurements,
) -> None:
    def kill_broker(chance: random.Random) -> None:
        valkey.kill()
        valkey.start()

    victims: list[Callable[[random.Random], None]] = [relays.kill_one, payers.kill_one, kill_broker]
    chance.shuffle(victims)
    for _ in range(PROCESSES):
        payers.start(TRANSACTIONS // PROCESSES, chance.randrange(10**6))
    for number in range(KILLS):
        eventually(lambda: payers.done >= (number + 1) * TRANSACTIONS // (KILLS + 1), 120)  # noqa: B023
        victims[number % len(victims)](chance)
    eventually(payers.have_ended, 300)
    measure_delay(outbox, reader, measurements)
    measure_rate(outbox, reader, measurements)
    check(reader, counters(outbox.engine), measurements)
    measurements.note(transactions=payers.done, kills=KILLS)
    eventually(lambda: not outbox.backlog().waiting)


def measure_delay(outbox: Outbox, reader: Reader, measurements: Measurements) -> None:
    """Measures the time from the end of a commit until its event is there."""
    eventually(lambda: len(reader) >= sum(counters(outbox.engine).values()), 120)
    delays = []
    for _ in range(COMMITS):
        key = CHANNELS[0], outbox_load.pay(outbox, CHANNELS[0])
        committed = time.time()
        eventually(lambda: key in reader.arrivals, every=0.001)  # noqa: B023 - called in this round only
        delays.append(reader.arrivals[key] - committed)
    p50 = percentile(delays, 50)
    measurements.note(commits=COMMITS, p50_ms=p50 * 1000, p99_ms=percentile(delays, 99) * 1000)
    assert p50 <= stretched(0.01)


def measure_rate(outbox: Outbox, reader: Reader, measurements: Measurements) -> None:
    """Measures the time from the first of many commits until the last event is there."""
    began = time.time()
    for first in range(0, EVENTS, 50):
        with Session(outbox.engine) as session, session.begin():
            for n in range(first, first + 50):
                outbox.publish(session, str(n), BULK, channel=BULK)
    eventually(lambda: len(reader.bulk) >= EVENTS, 60, every=0.005)
    rate = EVENTS / (time.time() - began)
    measurements.note(events=EVENTS, events_per_second=rate)
    assert reader.bulk == list(range(EVENTS))
    assert rate >= 2000 / stretched(1.0)


def check(reader: Reader, committed: dict[str, int], measurements: Measurements) -> None:
    """Compares the events that came with the counters, which have what was committed."""
    phantoms = sum(n > committed[channel] for channel, n in reader.arrivals)
    lost = sum(committed.values()) - len(reader) + phantoms
    doubled = sum(map(len, reader.got.values())) - len(reader)
    disorders = sum(a > b for got in reader.got.values() for a, b in itertools.pairwise(got))
    measurements.note(committed=sum(committed.values()), phantoms=phantoms, lost=lost, doubled=doubled)
    measurements.note(disorders=disorders, resets=reader.resets)
    assert (phantoms, lost, doubled, disorders, reader.resets) == (0, 0, 0, 0, 0)
    assert reader.got == {channel: list(range(1, n + 1)) for channel, n in committed.items()}
