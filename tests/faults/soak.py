"""The long test, FAULTS 25. Only `make soak` runs it. It takes half an hour, or SOAK_SECONDS.

300 clients on both transports, whose connections last 1 to 20 seconds, get 200 events a second. Meanwhile the
test kills all links every 15 seconds, reloads a server every 5 minutes, and kills one worker.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support.account.logs import LogAccount
from tests.support.account.verdict import Verdict
from tests.support.crowd import Client, Crowd
from tests.support.fault_setup import Baseline, Publisher, Valkey, allow_files, look_inside, servers, some_of
from tests.support.measurements import Measurements

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
#: Seconds after which the test checks the account and begins a new one, with new clients.
ROUND = 120.0
#: The first seconds of a worker, in which its memory may grow: histories fill, the allocator settles.
WARM_UP = min(240.0, SECONDS / 8)
#: A run must last this many seconds to check that memory does not grow. Shorter runs only print the growth.
LONG = 1800.0
CHANNELS = [f"room:{n}" for n in range(50)]
#: Events that a channel keeps: so few that the workers' channel caches are full after the warm-up.
KEPT = 200


class Every:
    """Calls `act` once every `seconds`, provided that `call_if_due` is called often."""

    def __init__(self, seconds: float, act: Callable[[], object]) -> None:
        self._seconds = seconds
        self._act = act
        self._next_at = time.monotonic() + seconds
        self.times = 0

    def call_if_due(self) -> None:
        if time.monotonic() >= self._next_at:
            self._next_at += self._seconds
            self.times += 1
            self._act()


@pytest.mark.timeout(SECONDS + 600)
def test_25_soak(valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path) -> None:
    allow_files(4000)
    samples: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    total = Verdict()
    settings: dict[str, Any] = {"linger": 2, "heartbeat": 5, "retry": 1, "history_size": KEPT}
    # Memory is read in another thread, so that clients do not wait for it.
    with servers(valkey.url, tmp_path, workers=2, **settings) as both, ThreadPoolExecutor(1) as pool:
        ports = [server.port for server in both]
        baseline = Baseline.take(both, 2)

        def sample() -> None:
            for server in both:
                with suppress(AssertionError):  # a worker that is stopping does not answer
                    for pid, held in look_inside(server, 2).items():
                        samples[pid].append((time.monotonic(), held["resident_kb"]))

        samplings: list[Future[None]] = []

        def start_sampling() -> None:
            if not samplings or samplings[-1].done():
                samplings.append(pool.submit(sample))

        def reload() -> None:
            both[reloads.times % 2].process.send_signal(signal.SIGHUP)

        kills = Every(15, lambda: valkey.client().client_kill_filter(_type="pubsub"))
        reloads = Every(min(300.0, SECONDS / 4), reload)
        worker_kill = Every(SECONDS / 2 + 20, lambda: os.kill(both[0].worker_pids()[0], signal.SIGKILL))
        watch = Every(SECONDS / 90, start_sampling)
        began, serial, published, cuts = time.monotonic(), 0, 0, 0
        while time.monotonic() < began + SECONDS:
            account = LogAccount()
            clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(300)]
            crowd = Crowd(ports, clients, chance, pause=(0, 1))
            crowd.open_all()
            crowd.start_cutting((1, 20))
            publisher = Publisher(
                valkey.url, account, lambda n: [CHANNELS[n % 50]], rate=200, many=10, first=serial,
                SSE_PUSH_HISTORY_SIZE=KEPT,
            )  # fmt: skip
            publisher.start()
            end = min(time.monotonic() + ROUND, began + SECONDS)
            while time.monotonic() < end:
                crowd.run(0.2)
                for regular in (kills, reloads, worker_kill, watch):
                    regular.call_if_due()
            publisher.stop()
            crowd.stop_cutting()
            crowd.catch_up(account)
            crowd.close()
            verdict = account.verdict([client.log for client in clients])
            print(f"{time.monotonic() - began:.0f} s: {verdict}", flush=True)
            add(total, verdict)
            published += len(account.events)
            cuts += crowd.cuts
            serial += 10**7
            assert crowd.statuses() == {200}
        samplings[-1].result()
        leaks = baseline.leaks(valkey.client(), 20)
        logs = [server.log.read_text() for server in both]
    windows = [points for points in map(warmed_up, samples.values()) if len(points) >= 8]
    assert windows, "no worker lived long enough"
    # A backlog adds megabytes to the memory of one worker. A leak makes the memory of all workers grow.
    growth = median(rise(points) / (points[-1][0] - points[0][0]) * 600 for points in windows)
    measurements.note(seconds=SECONDS, published=published, cuts=cuts, links_killed=kills.times)
    measurements.note(reloads=reloads.times, workers_killed=worker_kill.times, verdict=total, LEAK=leaks)
    measurements.note(workers_watched=len(windows), growth_kb_in_10_minutes=growth)
    assert total.clean(), total
    assert total.resets == 0
    assert kills.times >= SECONDS / 20
    assert worker_kill.times == 1
    assert not leaks
    assert growth < 1000 or SECONDS < LONG
    assert not any("Traceback" in text for text in logs)


def add(total: Verdict, part: Verdict) -> None:
    for name in ("lost", "doubled", "disordered", "resets", "delivered", "resumed"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.problems += part.problems


def warmed_up(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [point for point in points if point[0] >= points[0][0] + WARM_UP]


def rise(points: list[tuple[float, int]]) -> float:
    """By how many kB memory grew from the first to the last point: the slope of the least-squares line."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_kb = sum(kb for _, kb in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    slope = sum((at - mean_at) * (kb - mean_kb) for at, kb in points) / spread
    return slope * (points[-1][0] - points[0][0])
