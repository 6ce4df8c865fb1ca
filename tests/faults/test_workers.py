"""Workers that are stopped, reloaded, recycled, killed or preloaded: FAULTS 12, 13, 14 and 16."""

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
from tests.support.fault_setup import Baseline, Publisher, Valkey, allow_files, look_inside, servers, some_of
from tests.support.measurements import Measurements, percentile
from tests.support.processes import Gunicorn, has_ended

CHANNELS = [f"room:{n}" for n in range(10)]
PATCHED = Path(__file__).parents[1] / "support" / "patched.conf.py"


def channels_of(serial: int) -> list[str]:
    return [CHANNELS[serial % 10]]


def start_publisher(url: str, account: LogAccount, rate: float) -> Publisher:
    publisher = Publisher(url, account, channels_of, rate=rate)
    publisher.start()
    return publisher


def test_12_workers_work_although_a_preloading_master_patches_late(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with ExitStack() as stack:
        running: list[Gunicorn] = []
        for name, config in (("early", PATCHED), ("late", None)):
            running += stack.enter_context(
                servers(
                    valkey.url, tmp_path / name, "--preload", app="tests.apps.early_imports:app",
                    transports=("hijack",), workers=2, config=config, heartbeat=1,
                )
            )  # fmt: skip
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(60)]
        crowd = Crowd([server.port for server in running], clients, chance, life=(0.5, 2), pause=(0, 0.2))
        publisher = start_publisher(valkey.url, account, 200)
        assert crowd.until(lambda: crowd.cuts > 60, 60), crowd.cuts
        with valkey.client() as client:
            crowd.until(lambda: len(readers(client)) == 4, 60)
            for server in running:
                blocked_share(server)
            crowd.run(1.5)
            blocked = [blocked_share(server) for server in running]
            reader_count = len(readers(client))
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
    verdict = account.verdict([client.log for client in clients])
    measurements.note(blocked=max(blocked), readers=reader_count, verdict=verdict)
    assert reader_count == 4, "one link for each worker"
    assert verdict.clean(), verdict
    assert verdict.delivered > 1000
    # A read on an unpatched socket would block the event loop again and again, for half a second each time.
    assert max(blocked) < 0.5
    for server in running:
        assert "Traceback" not in server.log.read_text()


def readers(client: redis.Redis) -> list[Any]:
    """The links that have subscribed to channels."""
    return [link for link in client.client_list(_type="pubsub") if int(link["sub"]) > 1]


def blocked_share(server: Gunicorn) -> float:
    """The share of the time since the last call during which the event loop of a worker was blocked."""
    with httpx.Client(timeout=60, trust_env=False, verify=False) as http:
        return float(http.get(f"{server.url}/blocked").json()["share"])


def test_13_a_stopping_master_closes_500_streams_and_the_next_master_resumes_them(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    """500 streams of each transport."""
    allow_files(4000)
    account = LogAccount()
    with servers(valkey.url, tmp_path, heartbeat=5) as both:
        workers = [pid for server in both for pid in server.worker_pids()]
        ports = [server.port for server in both]
        crowds = [
            Crowd([port], [Client([chance.choice(CHANNELS)]) for _ in range(500)], chance, pause=(100, 100))
            for port in ports
        ]
        clients = [client for crowd in crowds for client in crowd.clients]
        for crowd in crowds:
            crowd.open_all(120)
        publisher = start_publisher(valkey.url, account, 50)
        run_all(crowds, 0.5)
        began = time.monotonic()
        for server in both:
            server.process.send_signal(signal.SIGTERM)
        gone_after: dict[int, float] = {}
        while len(gone_after) < len(workers) and time.monotonic() < began + 60:
            run_all(crowds, 0.02)
            gone_after |= {
                pid: time.monotonic() - began for pid in workers if pid not in gone_after and has_ended(pid)
            }
        masters = [server.process.wait(60) for server in both]
        run_all(crowds, 0.2)
    ends = [record.at - began for client in clients for record in client.log[0].records if is_end(record)]
    with servers(valkey.url, tmp_path / "next", ports=ports, heartbeat=5) as both:
        for client in clients:
            client.back_at = time.monotonic() + chance.uniform(0, 2)
        for crowd in crowds:
            crowd.pause = (0.0, 1.0)
            crowd.open_all(120)
        publisher.stop()
        for crowd in crowds:
            crowd.catch_up(account)
            crowd.close()
    verdict = account.verdict([client.log for client in clients])
    complete = [sum(client.complete for client in crowd.clients) for crowd in crowds]
    measurements.note(worker_gone=max(gone_after.values()), complete=complete, verdict=verdict)
    measurements.note(ends_spread_over=max(ends) - min(ends))
    logs = [path.read_text() for path in tmp_path.glob("*.log")]
    assert complete == [500, 500]
    assert not any(client.truncated for client in clients)
    assert len(ends) == 1000, "each stream gets an sse.close"
    assert max(ends) - min(ends) > 0.2, "the ends are spread over the drain window"
    assert len(gone_after) == 2
    assert max(gone_after.values()) <= stretched(3)
    assert masters == [0, 0]
    assert not any("SIGKILL" in text or "Traceback" in text for text in logs)
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert verdict.resumed >= 1000


def is_end(record: object) -> bool:
    return isinstance(record, Ended) and record.reason == "drain"


def run_all(crowds: Iterable[Crowd], seconds: float) -> None:
    """Steps all crowds in turn, for `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for crowd in crowds:
            crowd.step(0.001)


#: Reloads of test 14, in turn of the server of each transport.
RELOADS = 3


def test_14_reloads_and_recycling_under_load_lose_no_event(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    options = ["--max-requests", "60", "--max-requests-jitter", "60"]
    began = time.monotonic()
    with servers(valkey.url, tmp_path, *options, workers=2, heartbeat=1, retry=0.3) as both:
        for server in both:
            look_inside(server, 2)
        boot = time.monotonic() - began
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(80)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(0.3, 2), pause=(0, 0.3))
        crowd.open_all()
        publisher = start_publisher(valkey.url, account, 300)
        reload_times: list[float] = []
        for n in range(RELOADS):
            server = both[n % 2]
            old = server.worker_pids()
            began = time.monotonic()
            server.process.send_signal(signal.SIGHUP)
            crowd.run(0.1)
            crowd.until(lambda old=old: all(map(has_ended, old)), 60)  # type: ignore[misc]
            reload_times.append(time.monotonic() - began)
        crowd.until(lambda: recycled(both) >= 2, 120)
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
        logs = [server.log.read_text() for server in both]
    workers = sum(text.count("Booting worker with pid") for text in logs)
    connections = [connection for client in clients for connection in client.log]
    answers = [visit.answered_at - visit.asked_at for visit in connections if visit.answered_at]
    verdict = account.verdict([client.log for client in clients])
    measurements.note(reloads=RELOADS, recycled=recycled(both), workers=workers, cuts=crowd.cuts)
    measurements.note(
        boot=boot,
        old_gone=max(reload_times),
        first_byte_p99=percentile(answers, 99),
        longest_wait=max(answers),
    )
    measurements.note(verdict=verdict)
    assert recycled(both) >= 2, "no worker reached its limit of requests"
    assert workers >= 4 + 2 * RELOADS
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert crowd.statuses() == {200}
    assert max(reload_times) <= stretched(5)
    # A client that connects after the old workers stopped accepting waits until the new workers have started.
    assert percentile(answers, 99) <= max(stretched(3), 4 * boot)
    assert not any("SIGKILL" in text or "Traceback" in text for text in logs)


def recycled(both: Iterable[Gunicorn]) -> int:
    """How many workers have reached their limit of requests."""
    return sum(server.log.read_text().count("Autorestarting worker") for server in both)


def busiest(server: Gunicorn) -> int:
    """The pid of the worker with the most streams. The kernel distributes connections unevenly."""
    held = look_inside(server, 2)
    return max(held, key=lambda pid: held[pid]["streams"])


def gets_events(client: Client, since: float) -> bool:
    """Whether the client has got an event after `since`."""
    got = client.log[-1].got()
    return bool(got) and got[-1].at > since


def test_16_clients_of_a_killed_worker_reconnect_once_and_lose_no_event(
    valkey: Valkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    account = LogAccount()
    with servers(valkey.url, tmp_path, workers=2, heartbeat=1, linger=0.5) as both:
        baseline = Baseline.take(both, 2)
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(120)]
        crowd = Crowd([server.port for server in both], clients, chance, pause=(0, 1))
        crowd.open_all()
        publisher = start_publisher(valkey.url, account, 300)
        crowd.run(0.5)
        victims = [busiest(server) for server in both]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: all(map(has_ended, victims)))
        assert crowd.until(lambda: all(gets_events(client, killed + 1) for client in clients), 60)
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        with valkey.client() as client:
            leaks = baseline.leaks(client)
            held = [held for server in both for held in look_inside(server, 2).values()]
            links = sum(
                bool(worker["connected"]) for worker in held
            )  # only workers that have had streams have a link
            eventually(lambda: len(client.client_list(_type="pubsub")) == links, 10)
    back = [
        record.at - killed
        for client in clients
        for connection in client.log[1:]
        for record in connection.records
        if isinstance(record, Opened)
    ]
    verdict = account.verdict([client.log for client in clients])
    measurements.note(cut_off=len(back), back_p99=percentile(back, 99), verdict=verdict, LEAK=leaks)
    assert sum(client.truncated for client in clients) + len(back) > 20, (
        "the killed workers had too few clients"
    )
    assert len(back) > 20
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert percentile(back, 99) <= stretched(3) + 1, "plus the second that clients wait"
    assert not leaks
