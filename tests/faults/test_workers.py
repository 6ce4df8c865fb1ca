"""Workers that are told to stop, reloaded, recycled, killed or preloaded: FAULTS 12, 13, 14 and 16."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.support.account.logs import LogAccount
from tests.support.account.records import Ended, Opened
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually, stretched
from tests.support.figures import Counters, percentile
from tests.support.processes import Gunicorn
from tests.support.scene import Baseline, Publisher, Valkey, allow_files, gone, look_inside, servers, some_of

ROOMS = [f"room:{n}" for n in range(10)]
PATCHED = Path(__file__).parents[1] / "support" / "patched.conf.py"


def room_of(serial: int) -> list[str]:
    return [ROOMS[serial % 10]]


def publishing(url: str, account: LogAccount, rate: float) -> Publisher:
    publisher = Publisher(url, account, room_of, rate=rate)
    publisher.start()
    return publisher


def test_12_a_preloading_master_that_patches_late_harms_nothing(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    account = LogAccount()
    with ExitStack() as stack:
        found: list[Gunicorn] = []
        for name, config in (("early", PATCHED), ("late", None)):
            found += stack.enter_context(
                servers(
                    valkey.url, tmp_path / name, "--preload", app="tests.apps.early:app",
                    transports=("hijack",), workers=2, config=config, heartbeat=1,
                )
            )  # fmt: skip
        clients = [Client(some_of(chance, ROOMS, 3)) for _ in range(60)]
        crowd = Crowd([server.port for server in found], clients, chance, life=(0.5, 2), pause=(0, 0.2))
        publisher = publishing(valkey.url, account, 200)
        crowd.until(lambda: crowd.cuts > 60, 60)
        with valkey.client() as client:
            crowd.until(lambda: len(readers(client)) == 4, 60)
            for server in found:
                ask_blocked(server)
            crowd.live(1.5)
            blocked = [ask_blocked(server) for server in found]
            found_readers = len(readers(client))
        publisher.stop()
        crowd.stay()
        crowd.catch_up(account)
        crowd.close()
    verdict = account.verdict([client.log for client in clients])
    figures.note(blocked=max(blocked), readers=found_readers, verdict=verdict)
    assert found_readers == 4, "one for each worker"
    assert verdict.clean(), verdict
    assert verdict.delivered > 1000
    # A read on an unpatched socket would hold the loop for half a second at a time, and then again.
    assert max(blocked) < 0.5
    for server in found:
        assert "Traceback" not in server.log.read_text()


def readers(client: redis.Redis) -> list[Any]:
    """The links that follow channels."""
    return [each for each in client.client_list(_type="pubsub") if int(each["sub"]) > 1]


def ask_blocked(server: Gunicorn) -> float:
    """The share of the time since it was asked last in which a worker's loop was blocked for long."""
    with httpx.Client(timeout=60, trust_env=False) as http:
        return float(http.get(f"{server.url}/blocked").json()["share"])


def test_13_a_master_with_500_streams_ends_them_all_and_the_next_one_goes_on(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    """500 streams of each transport."""
    allow_files(4000)
    account = LogAccount()
    with servers(valkey.url, tmp_path, heartbeat=5) as both:
        workers = [pid for server in both for pid in server.worker_pids()]
        ports = [server.port for server in both]
        crowds = [
            Crowd([port], [Client([chance.choice(ROOMS)]) for _ in range(500)], chance, pause=(100, 100))
            for port in ports
        ]
        clients = [client for crowd in crowds for client in crowd.clients]
        for crowd in crowds:
            crowd.gather(120)
        publisher = publishing(valkey.url, account, 50)
        live(crowds, 0.5)
        began = time.monotonic()
        for server in both:
            server.process.send_signal(signal.SIGTERM)
        took: dict[int, float] = {}
        while len(took) < len(workers) and time.monotonic() < began + 60:
            live(crowds, 0.02)
            took |= {pid: time.monotonic() - began for pid in workers if pid not in took and gone(pid)}
        masters = [server.process.wait(60) for server in both]
        live(crowds, 0.2)
    ends = [record.at - began for client in clients for record in client.log[0].records if is_end(record)]
    with servers(valkey.url, tmp_path / "next", ports=ports, heartbeat=5) as both:
        for client in clients:
            client.back_at = time.monotonic() + chance.uniform(0, 2)
        for crowd in crowds:
            crowd.pause = (0.0, 1.0)
            crowd.gather(120)
        publisher.stop()
        for crowd in crowds:
            crowd.catch_up(account)
            crowd.close()
    verdict = account.verdict([client.log for client in clients])
    complete = [sum(client.complete for client in crowd.clients) for crowd in crowds]
    figures.note(worker_gone=max(took.values()), complete=complete, verdict=verdict)
    figures.note(ends_spread_over=max(ends) - min(ends))
    logs = [path.read_text() for path in tmp_path.glob("*.log")]
    assert complete == [500, 500]
    assert not any(client.truncated for client in clients)
    assert len(ends) == 1000, "each is told to go"
    assert max(ends) - min(ends) > 0.2, "they go spread over the window"
    assert len(took) == 2
    assert max(took.values()) <= stretched(3)
    assert masters == [0, 0]
    assert not any("SIGKILL" in text or "Traceback" in text for text in logs)
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert verdict.resumed >= 1000


def is_end(record: object) -> bool:
    return isinstance(record, Ended) and record.reason == "drain"


def live(crowds: Iterable[Crowd], seconds: float) -> None:
    """Lets all crowds live side by side."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for crowd in crowds:
            crowd.step(0.001)


def test_14_reloads_and_recycling_under_load_lose_nothing(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    account = LogAccount()
    options = ["--max-requests", "60", "--max-requests-jitter", "60"]
    began = time.monotonic()
    with servers(valkey.url, tmp_path, *options, workers=2, heartbeat=1, retry=0.3) as both:
        for server in both:
            look_inside(server, 2)
        boot = time.monotonic() - began
        clients = [Client(some_of(chance, ROOMS, 3)) for _ in range(80)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(0.3, 2), pause=(0, 0.3))
        crowd.gather()
        publisher = publishing(valkey.url, account, 300)
        lives: list[float] = []
        everybody = {pid for server in both for pid in server.worker_pids()}
        for n in range(5):
            server = both[n % 2]
            old = server.worker_pids()
            began = time.monotonic()
            server.process.send_signal(signal.SIGHUP)
            crowd.live(0.1)
            while not all(map(gone, old)) and time.monotonic() < began + 60:
                crowd.live(0.05)
            lives.append(time.monotonic() - began)
            crowd.live(max(0.0, began + 2 - time.monotonic()))
            everybody |= {pid for server in both for pid in server.worker_pids()}
        crowd.until(lambda: recycled(both) >= 2, 120)
        publisher.stop()
        crowd.stay()
        crowd.catch_up(account)
        crowd.close()
        logs = [server.log.read_text() for server in both]
    connections = [connection for client in clients for connection in client.log]
    answers = [each.answered_at - each.asked_at for each in connections if each.answered_at]
    verdict = account.verdict([client.log for client in clients])
    figures.note(reloads=5, recycled=recycled(both), workers=len(everybody), cuts=crowd.cuts)
    figures.note(
        boot=boot, old_gone=max(lives), first_byte_p99=percentile(answers, 99), longest_wait=max(answers)
    )
    figures.note(verdict=verdict)
    assert recycled(both) >= 2, "no worker reached its limit of requests"
    assert len(everybody) >= 4 + 10
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert crowd.statuses() == {200}
    assert max(lives) <= stretched(5)
    # Who comes when the old workers have stopped accepting waits until the new ones have booted.
    assert percentile(answers, 99) <= max(stretched(3), 4 * boot)
    assert not any("SIGKILL" in text or "Traceback" in text for text in logs)


def recycled(both: Iterable[Gunicorn]) -> int:
    """How many workers have reached their limit of requests."""
    return sum(server.log.read_text().count("Autorestarting worker") for server in both)


def busiest(server: Gunicorn) -> int:
    """The pid of the worker with the most streams: the kernel deals them out unevenly."""
    held = look_inside(server, 2)
    return max(held, key=lambda pid: held[pid]["streams"])


def test_16_a_worker_killed_under_load_costs_its_clients_one_reconnect(
    valkey: Valkey, chance: random.Random, figures: Counters, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, workers=2, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both, 2)
        clients = [Client(some_of(chance, ROOMS, 3)) for _ in range(120)]
        crowd = Crowd([server.port for server in both], clients, chance, pause=(0, 1))
        crowd.gather()
        publisher = publishing(valkey.url, account, 300)
        crowd.live(0.5)
        victims = [busiest(server) for server in both]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: all(map(gone, victims)))
        crowd.live(4)
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        with valkey.client() as client:
            leaks = baseline.leaks(client)
            held = [held for server in both for held in look_inside(server, 2).values()]
            links = sum(bool(each["connected"]) for each in held)  # of those that have had streams
            eventually(lambda: len(client.client_list(_type="pubsub")) == links, 10)
    back = [
        record.at - killed
        for client in clients
        for connection in client.log[1:]
        for record in connection.records
        if isinstance(record, Opened)
    ]
    verdict = account.verdict([client.log for client in clients])
    figures.note(cut_off=len(back), back_p99=percentile(back, 99), verdict=verdict, LEAK=leaks)
    assert sum(client.truncated for client in clients) + len(back) > 20, "nobody was there"
    assert len(back) > 20
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert percentile(back, 99) <= stretched(3) + 1, "and the second that clients wait"
    assert not leaks
