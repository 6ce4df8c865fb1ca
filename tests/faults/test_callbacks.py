"""Functions of the app that raise anything or hang, and threads of the package that something ends."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually
from tests.support.fault_setup import TRANSPORTS, Publisher, Valkey, servers, some_of
from tests.support.measurements import Measurements
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

APP = "tests.apps.callbacks:app"
CHANNELS = [f"room:{n}" for n in range(5)]
ERRORS = ("GreenletExit", "Timeout", "SystemExit", "ValueError")
#: Threads that every worker with streams has, and functions in which they are ended.
THREADS = {
    "hub": ("deliver", "take"),
    "reader": ("read",),
    "fetcher": ("history", None),
    "recheck": (None,),
    "counts": (None, "report"),
    "runs": (None,),
    "run": (None,),
    "reporter": (None,),
}


def health(server: Gunicorn, http: httpx.Client) -> dict[str, Any]:
    body: dict[str, Any] = http.get(f"{server.url}/stream/health").json()
    return body


def threads(server: Gunicorn, http: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = http.get(f"{server.url}/threads").json()
    return found


def end(server: Gunicorn, http: httpx.Client, name: str, error: str, inside: str | None) -> dict[str, Any]:
    """Ends a thread, and waits until another one does its work."""
    before = threads(server, http)[name]
    where = {"error": error} | ({"inside": inside} if inside else {})
    answer = http.post(f"{server.url}/end/{name}", params=where)
    assert answer.status_code == 200, (name, answer.text)
    told: dict[str, Any] = answer.json()
    assert told["dead"], told
    if name != "run":
        eventually(lambda: threads(server, http).get(name, before) != before)
        eventually(lambda: health(server, http)["status"] == "HEALTHY", 20)
    return told


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_thread_that_is_ended_starts_again_and_no_event_is_lost(
    valkey: Valkey,
    chance: random.Random,
    measurements: Measurements,
    tmp_path: Path,
    http: httpx.Client,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "metrics").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    account, ends, critical = LogAccount(), 0, 0
    settings: dict[str, Any] = {"heartbeat": 1, "recheck": 1, "max_streams_per_user": 9, "retry": 0.1}
    with servers(valkey.url, tmp_path, app=APP, transports=[transport], **settings) as (server,):
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(30)]
        crowd = Crowd([server.port], clients, chance, life=(2, 8), pause=(0, 0.1))
        crowd.open_all()
        watched = Stream(f"{server.url}/stream?channels=public&user=ann")
        watched.next_of("sse.open")
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 5]], rate=300)
        publisher.start()
        names = dict(THREADS) | ({"connections": (None,)} if transport == "hijack" else {})
        for number, (name, places) in enumerate(names.items()):
            for turn, inside in enumerate(places):
                if name.startswith("run"):
                    http.post(f"{server.url}/start/{name}{turn}")
                told = end(server, http, name, ERRORS[(number + turn) % 4], inside)
                assert inside in (None, *told["was_in"])
                critical += bool(told["ended"])
                ends += 1
                crowd.run(0.2)
        for _ in range(3):  # again and again, so that the dispatcher pauses before it goes on
            end(server, http, "hub", "GreenletExit", None)
            ends += 1
        metrics = http.get(f"{server.url}/stream/metrics").text
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
        log = (tmp_path / f"{transport}-0.log").read_text()
    verdict = account.verdict([client.log for client in clients])
    counted = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("sse_push_thread_ends_total")
    )
    measurements.note(ends=ends, counted=counted, seen_critical=critical, verdict=verdict)
    assert counted >= ends - 1, "the threads were not ended"  # the run's thread ends as a failed producer
    assert log.count("has ended by") >= ends - 1
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert verdict.delivered > 1000
