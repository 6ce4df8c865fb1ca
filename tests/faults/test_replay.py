"""Clients that ask one worker for much history while others live on it.

`FAULTS_REPLAY=full pytest tests/faults/test_replay.py -k disturb` does this at full size: 20 clients ask for
50 channels of 1,000 events with 10 kB each, while 200 others live. That run also checks the limits of latency
and memory. The numbers mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from flask_sse_push.config import Settings
from flask_sse_push.history.read_queue import PAGE_PART
from flask_sse_push.hub.pace import HIGHEST
from tests.support.account.logs import LogAccount
from tests.support.account.records import Got
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually
from tests.support.fault_setup import Publisher, Valkey, allow_files, look_inside, servers
from tests.support.measurements import Measurements, percentile
from tests.support.processes import Gunicorn
from tests.support.replay import Askers, ask, fill, forget_peak, memory_of

from .conftest import StartValkey


class Size(NamedTuple):
    """How big an attack is."""

    askers: int
    channels: int
    events: int  # in each channel
    living: int  # clients that live on the worker meanwhile
    seconds: float  # how long latency is measured before the attack
    settings: dict[str, Any]
    memory: float  # at most how many megabytes the worker may take above idle


SMALL = Size(5, 20, 200, 30, 1.0, {"catch_up_bytes": 8_000_000, "catch_up_page": 500_000}, 25)
FULL = Size(20, 50, 1000, 200, 10.0, {}, 150)
IS_FULL = os.environ.get("FAULTS_REPLAY") == "full"
SIZE = FULL if IS_FULL else SMALL
BYTES = 10_000  # of each event


def latencies(crowd: Crowd, account: LogAccount, while_true: Callable[[], bool]) -> list[float]:
    """Seconds from publish to arrival of the events that were published while a condition held."""
    began = time.monotonic()
    while while_true():
        crowd.step(0.001)
    gots = [got for client in crowd.clients for got in client.log[-1].records if isinstance(got, Got)]
    return [got.at - account.sent[got.serial] for got in gots if account.sent[got.serial] > began]


def for_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def server_pid(valkey: Valkey) -> int:
    return int(valkey.client().info("server")["process_id"])


def test_26_big_replays_disturb_nobody_and_take_bounded_memory(
    start_valkey: StartValkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    allow_files(4000)
    valkey, account = start_valkey(appendonly="no"), LogAccount()
    names = [f"full:{n}" for n in range(SIZE.channels)]
    fill(valkey.url, names, SIZE.events, BYTES)
    query = f"last=1000&channels={','.join(names)}"
    with servers(valkey.url, tmp_path, transports=["hijack"], **SIZE.settings) as (server,):
        crowd = Crowd([server.port], [Client(["live"]) for _ in range(SIZE.living)], chance)
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: ["live"], rate=20)
        publisher.start()
        (worker,) = server.worker_pids()
        calm = latencies(crowd, account, for_seconds(SIZE.seconds))
        askers = Askers(server.port, query, 1000, SIZE.askers, 400)
        idle, before = memory_of(worker), look_inside(server, 1)[worker]
        forget_peak(worker)
        forget_peak(server_pid(valkey))
        idle_valkey = memory_of(server_pid(valkey))
        leave_at_once(server, query, 30)
        askers.begin()
        busy = latencies(crowd, account, lambda: askers.at_work)
        got = askers.results(400)
        newcomer = ask(server.port, "last=5&channels=full:0", 5, 30)
        peak = memory_of(worker, peak=True) - idle
        after = look_inside(server, 1)[worker]
        publisher.stop()
        crowd.catch_up(account)
        crowd.close()
        eventually(lambda: look_inside(server, 1)[worker]["streams"] == 0)
        left = memory_of(worker) - idle
    verdict = account.verdict([client.log for client in crowd.clients])
    ratio = percentile(busy, 99) / percentile(calm, 99)
    measurements.note(
        events=sum(asked.events for asked in got),
        slowest=max(asked.seconds for asked in got),
        p99_calm=percentile(calm, 99),
        p99_busy=percentile(busy, 99),
        p99_ratio=ratio,
        worker_peak_MB=peak,
        worker_left_MB=left,
        valkey_idle_MB=idle_valkey,
        valkey_peak_MB=memory_of(server_pid(valkey), peak=True),
        history_calls=after["history_calls"] - before["history_calls"],
        newcomer=newcomer.seconds,
        verdict=verdict,
    )
    assert verdict.clean(), verdict
    assert after["reconnects"] == before["reconnects"], "the worker lost its link"
    assert all(asked.in_order and (asked.events == 1000 or asked.told) for asked in got)
    total = sum(asked.events for asked in got) * BYTES
    assert total >= 1000 * BYTES * SIZE.askers // 2, "nearly all clients were told off"
    assert newcomer.events == 5, "a client that comes during the attack gets nothing"
    assert peak <= SIZE.memory
    page = SIZE.settings.get("catch_up_page", Settings().catch_up_page) // PAGE_PART
    assert after["history_calls"] - before["history_calls"] >= 1000 * BYTES / page, "the pages are too big"
    assert max(asked.seconds for asked in got) >= 0.8 * total / HIGHEST, (
        "the clients got too much in a second"
    )
    assert not IS_FULL or ratio <= 1.2


def leave_at_once(server: Gunicorn, query: str, count: int) -> None:
    """Opens streams that leave before they get anything."""
    for _ in range(count):
        visitor = socket.create_connection(("127.0.0.1", server.port), 60)
        visitor.sendall(f"GET /stream?{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        visitor.close()


def test_26_a_link_that_breaks_during_big_replays_is_resynced_first(
    start_valkey: StartValkey, chance: random.Random, measurements: Measurements, tmp_path: Path
) -> None:
    valkey, account = start_valkey(appendonly="no"), LogAccount()
    names = [f"full:{n}" for n in range(20)]
    fill(valkey.url, names, 100, BYTES)
    everything = f"last_event_id=earliest&channels={','.join(names)}"
    with servers(valkey.url, tmp_path, transports=["hijack"], **SMALL.settings) as (server,):
        crowd = Crowd([server.port], [Client(["live"]) for _ in range(20)], chance)
        crowd.open_all()
        publisher = Publisher(valkey.url, account, lambda n: ["live"], rate=50)
        publisher.start()
        askers = Askers(server.port, everything, 2000, 6, 400)
        askers.begin()
        client, kills = valkey.client(), 0
        while askers.at_work:
            crowd.run(0.2)
            kills += client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        got = askers.results(400)
        publisher.stop()
        crowd.catch_up(account)
        assert crowd.until(lambda: reconnects(server) > 0, 60), f"{kills} links were killed, none was renewed"
        crowd.close()
    verdict = account.verdict([client.log for client in crowd.clients])
    measurements.note(kills=kills, verdict=verdict)
    assert verdict.clean(), verdict
    assert all(asked.in_order and (asked.events == 2000 or asked.told) for asked in got), got


def reconnects(server: Gunicorn) -> int:
    return sum(int(held["reconnects"]) for held in look_inside(server, 1).values())


def test_26_clients_that_catch_up_slowly_leave_places_for_pages(
    start_valkey: StartValkey, measurements: Measurements, tmp_path: Path
) -> None:
    """Of 20 places, 18 are for streams. Clients that read nothing take all of these while they catch up."""
    valkey = start_valkey(appendonly="no")
    fill(valkey.url, ["full:0", "full:1"], 1000, BYTES)
    options = "--worker-connections", "20"
    with servers(valkey.url, tmp_path, *options, transports=["hijack"], write_timeout=60) as (server,):
        slow = [slow_client(server.port) for _ in range(18)]
        eventually(lambda: look_inside(server, 1) and open_streams(server) == 18)
        refused = eventually(lambda: refusal_of(f"{server.url}/stream?channels=full:0"))
        began = time.monotonic()
        page = httpx.get(f"{server.url}/inspect", trust_env=False)
        measurements.note(page=time.monotonic() - began)
        for client in slow:
            client.close()
    assert refused is not None
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert page.status_code == 200


def refusal_of(url: str) -> httpx.Response | None:
    """Asks for a stream. Returns the answer if the server refuses the stream."""
    with httpx.stream("GET", url, trust_env=False) as response:
        if response.status_code == 200:
            return None
        response.read()
        return response


def slow_client(port: int) -> socket.socket:
    """Opens a stream that wants 20 MB, and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(
        b"GET /stream?last_event_id=earliest&channels=full:0,full:1 HTTP/1.1\r\nHost: test\r\n\r\n"
    )
    return client


def open_streams(server: Gunicorn) -> int:
    return sum(int(held["streams"]) for held in look_inside(server, 1).values())
