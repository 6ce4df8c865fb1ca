"""Whether the workers' memory stays level. Only `make memory` runs this, for 130 minutes or MEMORY_SECONDS.

Nothing reloads the workers, so that memory has time to settle. 60 clients on both transports get 50 events a
second and are cut off after 1 to 20 seconds. 20 visitors come with compression, batches, users and channels
that nobody had before. The test kills all links every 15 seconds.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.account.logs import LogAccount
from tests.support.account.verdict import Verdict
from tests.support.crowd import Client, Crowd
from tests.support.fault_setup import Baseline, Publisher, Valkey, allow_files, look_inside, servers, some_of
from tests.support.measurements import Measurements
from tests.support.memory import resident_kb, slope
from tests.support.processes import Gunicorn

SECONDS = float(os.environ.get("MEMORY_SECONDS", "7800"))
#: Seconds of a round. After each round, the test prints the memory, checks the account, and begins with new
#: clients.
ROUND = 60.0
#: The first seconds, in which memory may grow: histories and caches fill, the allocator settles.
WARM_UP = 600.0
#: At most so many kB an hour may the memory of a worker grow after the warm-up, in a run of an hour or more.
LIMIT, LONG = 500.0, 3600.0
CHANNELS = [f"room:{n}" for n in range(50)]
#: Events that a channel keeps: so few that the workers' channel caches are full after the warm-up.
KEPT = 50

_serials = itertools.count(1)


class Visitor(Client):
    """A user with a name and a channel that nobody had before. It reads a compressed stream, unchecked."""

    def request(self) -> str:
        n = next(_serials)
        query = f"channels=room:{n % 50},visit:{n}&batch=100&user=visitor-{n}"
        return f"GET /stream?{query} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n"

    def feed(self, data: bytes) -> None:
        """Only counts the response."""
        if self.log[-1].status is None and data.startswith(b"HTTP/1.1 "):
            self.log[-1].status = int(data[9:12])


@dataclass
class Run:
    """What happened so far."""

    servers: Sequence[Gunicorn]
    began: float = field(default_factory=time.monotonic)
    total: Verdict = field(default_factory=Verdict)
    published: int = 0
    connects: int = 0
    links_killed: int = 0
    statuses: set[int] = field(default_factory=set)
    #: For each worker, the memory in kB at each second of the run at which it was read.
    samples: defaultdict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def sample(self) -> None:
        """Reads and prints the memory of each worker."""
        for server in self.servers:
            for pid in server.worker_pids():
                self.samples[pid].append((self.seconds, resident_kb(pid)))
        memory = " ".join(f"{pid}:{points[-1][1]}" for pid, points in self.samples.items())
        done = f"{self.connects} connects, {self.links_killed} links killed, {self.published} published"
        print(f"{self.seconds:.0f} s: kB {memory}, {done}; {self.total}", flush=True)

    def look(self) -> None:
        """Prints what the workers hold, and reads their metrics."""
        for server in self.servers:
            for pid, held in look_inside(server, 1).items():
                print(f"    {pid}: {held['objects']} objects, {held['blocks']} blocks", flush=True)
            with suppress(httpx.HTTPError):
                httpx.get(f"{server.url}/stream/metrics", headers={"Connection": "close"}, timeout=30)

    def growth(self) -> dict[int, float]:
        """By how many kB an hour each worker's memory grew after the warm-up."""
        settled = {
            pid: [point for point in points if point[0] >= WARM_UP] for pid, points in self.samples.items()
        }
        return {pid: slope(points) * 3600 for pid, points in settled.items() if len(points) > 2}


@pytest.mark.timeout(SECONDS + 600)
def test_memory_is_level(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    allow_files(4000)
    settings: dict[str, Any] = {
        "linger": 2, "heartbeat": 5, "retry": 1, "history_size": KEPT, "public_channels": "room:*,visit",
        "presence_channels": "visit:*",
    }  # fmt: skip
    with servers(valkey.url, tmp_path, app="tests.apps.busy:app", **settings) as both:
        play_round(Run(both), valkey, chance, first=10**9, seconds=5)  # starts the threads for users
        baseline = Baseline.take(both)
        run = Run(both)
        for number in itertools.count():
            if run.seconds >= SECONDS:
                break
            play_round(run, valkey, chance, first=number * 10**6)
            run.sample()
            if number % 10 == 0:
                run.look()
        leaks = baseline.leaks(valkey.client(), 20)
        run.look()
    growth = run.growth()
    measurements.note(seconds=run.seconds, published=run.published, connects=run.connects)
    measurements.note(links_killed=run.links_killed, verdict=run.total, LEAK=leaks, growth_kb_an_hour=growth)
    assert run.total.clean(), run.total
    assert run.total.resets == 0
    assert run.statuses == {200}
    assert not leaks
    assert len(run.samples) == 2, "a worker ended"
    assert SECONDS < LONG or max(growth.values()) <= LIMIT


def play_round(run: Run, valkey: Valkey, chance: random.Random, first: int, seconds: float = ROUND) -> None:
    """Runs new clients, then checks what they got.

    :param first: the serial number of the first event.
    """
    account = LogAccount()
    ports = [server.port for server in run.servers]
    clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(60)]
    crowd = Crowd(ports, clients, chance, life=(1, 20))
    visitors = Crowd(ports, [Visitor(()) for _ in range(20)], chance, life=(0.5, 5))
    crowd.open_all()
    publisher = Publisher(
        valkey.url, account, lambda n: [CHANNELS[n % 50]], rate=50, many=5, first=first,
        SSE_PUSH_HISTORY_SIZE=KEPT,
    )  # fmt: skip
    publisher.start()
    end, kill_at = time.monotonic() + seconds, time.monotonic() + 10
    while time.monotonic() < end:
        crowd.step(0.05)
        visitors.step(0.001)
        if time.monotonic() >= kill_at:
            kill_at += 15
            run.links_killed += int(valkey.client().client_kill_filter(_type="pubsub"))
    publisher.stop()
    crowd.stop_cutting()
    crowd.catch_up(account)
    for each in (crowd, visitors):
        each.close()
        run.connects += sum(len(client.log) for client in each.clients)
        run.statuses |= each.statuses()
    run.total.add(account.verdict([client.log for client in clients]))
    run.published += len(account.events)
