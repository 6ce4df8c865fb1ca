"""The long run, `make soak`: FAULTS 25. Half an hour, or SOAK_SECONDS; not among the tests of `make test`.

300 clients of both transports that live for 1 to 20 seconds, 200 events a second in batches, a killed link
every 15 seconds, a reload every 5 minutes, and one worker killed.
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
from tests.support.figures import Counters
from tests.support.scene import Baseline, Publisher, Valkey, allow_files, look_inside, servers, some_of

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
#: Seconds after which the test takes a verdict and begins a new account.
CHAPTER = 120.0
#: Seconds of a worker's life before its memory counts: histories fill, the allocator settles.
WARM_UP = min(240.0, SECONDS / 8)
#: Seconds of a run that tells whether memory grows; in shorter ones it is only shown.
LONG = 1800.0
ROOMS = [f"room:{n}" for n in range(50)]
#: Events a channel keeps: so few that the workers' copies are full before their memory is watched.
KEPT = 200


class Every:
    """Does something each so many seconds."""

    def __init__(self, seconds: float, act: Callable[[], object]) -> None:
        self._seconds = seconds
        self._act = act
        self._due = time.monotonic() + seconds
        self.times = 0

    def look(self) -> None:
        if time.monotonic() >= self._due:
            self._due += self._seconds
            self.times += 1
            self._act()


@pytest.mark.timeout(SECONDS + 600)
def test_25_soak(valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path) -> None:
    allow_files(4000)
    samples: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    total = Verdict()
    settings: dict[str, Any] = {"linger": 2, "heartbeat": 5, "retry": 1, "history_size": KEPT}
    # Whoever is asked from aside keeps no client waiting.
    with servers(valkey.url, tmp_path, workers=2, **settings) as both, ThreadPoolExecutor(1) as aside:
        ports = [server.port for server in both]
        baseline = Baseline.take(both, 2)

        def sample() -> None:
            for server in both:
                with suppress(AssertionError):  # a worker that is leaving does not answer
                    for pid, held in look_inside(server, 2).items():
                        samples[pid].append((time.monotonic(), held["resident_kb"]))

        looks: list[Future[None]] = []

        def look() -> None:
            if not looks or looks[-1].done():
                looks.append(aside.submit(sample))

        def reload() -> None:
            both[reloads.times % 2].process.send_signal(signal.SIGHUP)

        kills = Every(15, lambda: valkey.client().client_kill_filter(_type="pubsub"))
        reloads = Every(min(300.0, SECONDS / 4), reload)
        murder = Every(SECONDS / 2 + 20, lambda: os.kill(both[0].worker_pids()[0], signal.SIGKILL))
        watch = Every(SECONDS / 90, look)
        began, serial, published, cuts = time.monotonic(), 0, 0, 0
        while time.monotonic() < began + SECONDS:
            account = LogAccount()
            clients = [Client(some_of(chance, ROOMS, 3)) for _ in range(300)]
            crowd = Crowd(ports, clients, chance, pause=(0, 1))
            crowd.gather()
            crowd.scatter((1, 20))
            publisher = Publisher(
                valkey.url, account, lambda n: [ROOMS[n % 50]], rate=200, many=10, first=serial,
                SSE_PUSH_HISTORY_SIZE=KEPT,
            )  # fmt: skip
            publisher.start()
            end = min(time.monotonic() + CHAPTER, began + SECONDS)
            while time.monotonic() < end:
                crowd.live(0.2)
                for each in (kills, reloads, murder, watch):
                    each.look()
            publisher.stop()
            crowd.stay()
            crowd.catch_up(account)
            crowd.close()
            verdict = account.verdict([client.log for client in clients])
            print(f"{time.monotonic() - began:.0f} s: {verdict}", flush=True)
            add(total, verdict)
            published += len(account.events)
            cuts += crowd.cuts
            serial += 10**7
            assert crowd.statuses() == {200}
        looks[-1].result()
        leaks = baseline.leaks(valkey.client(), 20)
        logs = [server.log.read_text() for server in both]
    windows = [points for points in map(warmed_up, samples.values()) if len(points) >= 8]
    assert windows, "no worker lived long enough"
    # A worker's memory goes up by megabytes when a backlog comes; a leak shows in all of them.
    growth = median(rise(points) / (points[-1][0] - points[0][0]) * 600 for points in windows)
    figures.note(seconds=SECONDS, published=published, cuts=cuts, links_killed=kills.times)
    figures.note(reloads=reloads.times, workers_killed=murder.times, verdict=total, LEAK=leaks)
    figures.note(workers_watched=len(windows), growth_kb_in_10_minutes=growth)
    assert total.clean(), total
    assert total.resets == 0
    assert kills.times >= SECONDS / 20
    assert murder.times == 1
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
    """By how many kB memory grew from the first to the last point, by least squares."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_kb = sum(kb for _, kb in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    slope = sum((at - mean_at) * (kb - mean_kb) for at, kb in points) / spread
    return slope * (points[-1][0] - points[0][0])
