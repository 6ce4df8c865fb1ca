"""Workers that fork while clients come, leave and get events."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from threading import Thread

import httpx

from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually
from tests.support.fault_setup import Publisher, Valkey, servers, some_of
from tests.support.measurements import Measurements
from tests.support.processes import ENDED, Gunicorn, connections_of, processor_seconds

CHANNELS = [f"room:{n}" for n in range(10)]
#: The ways in which a child is a copy of its worker.
COPIES = ("os.fork", "Process", "ProcessPoolExecutor", "native thread")
#: How many children must be seen alive. On a busy machine, some end before the test looks at them.
ENOUGH = 8


class Forker(Thread):
    """Makes each worker fork in all ways, and notes what the children have."""

    def __init__(self, servers: Sequence[Gunicorn]) -> None:
        super().__init__(daemon=True)
        self._servers = servers
        self.alive = 0  # children that were seen alive
        self.shared = 0  # connections of a worker that its newest child holds
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with httpx.Client(timeout=60, trust_env=False, verify=False) as http:
                while self.alive < ENOUGH:
                    for way, sleep, server in product(COPIES, ("native", "gevent"), self._servers):
                        if (way, sleep) != ("native thread", "gevent"):  # there, gevent does not run at all
                            self._fork(http, server, way, sleep)
        except BaseException as error:
            self.error = error

    def _fork(self, http: httpx.Client, server: Gunicorn, way: str, sleep: str) -> None:
        (worker,) = server.worker_pids()
        held = connections_of(worker)
        answer = http.post(f"{server.url}/fork", params={"way": way, "sleep": sleep, "seconds": 1.0})
        child = int(answer.raise_for_status().text)
        self._wait_for_release(child, held)

    def _wait_for_release(self, child: int, held: set[str]) -> None:
        """Waits until the child has none of the worker's connections, or has ended."""

        def released() -> bool:
            try:
                # The child keeps the connection of the request that has made it: gunicorn owns that one.
                self.shared = len(connections_of(child) & held)
            except ENDED:
                self.shared = 0
                return True
            self.alive += self.shared <= 1
            return self.shared <= 1

        eventually(released)


def test_children_of_workers_harm_no_stream(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, app="tests.apps.forking:app", heartbeat=1, retry=0.3) as both:
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(80)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(0.3, 2), pause=(0, 0.2))
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda serial: [CHANNELS[serial % 10]], rate=100)
        publisher.start()
        forker = Forker(both)
        forker.start()
        assert crowd.until(lambda: not forker.is_alive() and crowd.cuts > 40, 120), (
            f"{forker.alive} children lived beside their workers, and {crowd.cuts} connections were cut"
        )
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        shares = list(busy_shares(both, crowd))
        crowd.close()
    verdict = account.verdict([client.log for client in clients])
    measurements.note(children=forker.alive, cuts=crowd.cuts, busy=max(shares), verdict=verdict)
    assert forker.error is None
    assert forker.shared <= 1
    assert {connection.status for client in clients for connection in client.log} <= {200, None}
    assert not any(client.truncated for client in clients)
    assert max(shares) < 0.3
    assert verdict.clean(), verdict


def busy_shares(servers: Sequence[Gunicorn], crowd: Crowd) -> Iterator[float]:
    """The share of the time for which each worker is busy although no event comes and a child is alive."""
    for server in servers:
        (worker,) = server.worker_pids()
        arguments: dict[str, str | int] = {"way": "os.fork", "sleep": "native", "seconds": 15}
        child = int(httpx.post(f"{server.url}/fork", params=arguments, trust_env=False).text)
        for client in crowd.clients[::2]:
            crowd.lose(client, reset=True)
        crowd.run(0.5)
        began, used = time.monotonic(), processor_seconds(worker)
        crowd.run(1.0)
        assert os.path.exists(f"/proc/{child}"), server.log.read_text()[-2000:]
        yield (processor_seconds(worker) - used) / (time.monotonic() - began)
