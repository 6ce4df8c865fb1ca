"""Functions of the app that raise anything or hang, and threads of the package that something ends."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.account.logs import LogAccount
from tests.support.crowd import Client, Crowd
from tests.support.deadline import eventually, stretched
from tests.support.fault_setup import Publisher, Valkey, servers, some_of
from tests.support.measurements import Measurements
from tests.support.processes import Gunicorn, has_ended
from tests.support.stream import Stream

APP = "tests.apps.callbacks:app"
CHANNELS = [f"room:{n}" for n in range(5)]
ERRORS = ("GreenletExit", "Timeout", "SystemExit")
#: Threads of a worker with streams, and a function in which each is ended; None: wherever it is.
THREADS: list[tuple[str, str | None]] = [
    *[("hub", "deliver"), ("hub", "wait"), ("reader", "read"), ("fetcher", "history"), ("fetcher", None)],
    *[("hub", "deliver"), ("recheck", None), ("counts", None), ("counts", "report"), ("runs", None)],
    *[("run", None), ("reporter", None), ("connections", None)],
]
SETTINGS: dict[str, Any] = {
    **{"heartbeat": 1, "recheck": 1, "retry": 0.1, "probe": 0.5, "presence_channels": "lobby"},
    **{"max_streams_per_user": 9, "presence_grace": 0, "public_channels": "lobby,room:*,run:*"},
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


def test_every_thread_that_is_ended_starts_again_and_no_event_is_lost(
    valkey: Valkey,
    chance: random.Random,
    measurements: Measurements,
    tmp_path: Path,
    http: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "metrics").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    account, ends, critical = LogAccount(), 0, 0
    with servers(valkey.url, tmp_path, app=APP, **SETTINGS) as both:
        clients = [Client(some_of(chance, CHANNELS, 3)) for _ in range(40)]
        crowd = Crowd([server.port for server in both], clients, chance, life=(2, 8), pause=(0, 0.1))
        crowd.open_all()
        watched = [Stream(f"{server.url}/stream?channels=private&user=ann") for server in both]
        publisher = Publisher(valkey.url, account, lambda n: [CHANNELS[n % 5]], rate=300)
        publisher.start()
        for number, (name, inside) in enumerate(THREADS):
            server = both[0] if name == "connections" else both[number % 2]
            if name.startswith("run"):
                http.post(f"{server.url}/start/{name}")
            told = end(server, http, name, ERRORS[number % 3], inside)
            critical += bool(told["ended"])
            ends += 1
            crowd.run(0.1)
        for _ in range(3):  # again and again, so that the dispatcher pauses before it goes on
            end(both[0], http, "hub", "GreenletExit", None)
            ends += 1
        counted = sum(ended_threads(server, http) for server in both[:1])
        publisher.stop()
        crowd.stop_cutting()
        crowd.catch_up(account)
        crowd.close()
        for stream in watched:
            stream.next_of("sse.open")
            stream.close()
        log = "".join(server.log.read_text() for server in both)
    verdict = account.verdict([client.log for client in clients])
    measurements.note(ends=ends, counted=counted, seen_critical=critical, verdict=verdict)
    assert counted >= ends - 1, "the threads were not ended"  # the run's thread ends as a failed producer
    assert log.count("has ended by") >= ends - 1
    assert verdict.clean(), verdict
    assert verdict.resets == 0
    assert verdict.delivered > 1000


def ended_threads(server: Gunicorn, http: httpx.Client) -> float:
    """How many ends of threads the metrics count, on all servers that share the folder of the metrics."""
    lines = http.get(f"{server.url}/stream/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("sse_push_thread_ends_total"))


def test_functions_that_raise_or_hang_end_nothing_but_their_own_calls(
    valkey: Valkey, measurements: Measurements, tmp_path: Path, http: httpx.Client
) -> None:
    signals = ("stream-opened", "stream-closed", "history-lost", "event-published")
    with servers(valkey.url, tmp_path, app=APP, **SETTINGS) as both:
        streams = [Stream(f"{server.url}/stream?channels=room:1") for server in both for _ in range(6)]
        for stream in streams:
            stream.next_of("sse.open")
        for what in ("Timeout", "SystemExit", "hang"):
            before = [break_functions(server, http, dict.fromkeys(signals, what)) for server in both]
            valkey.client().flushall()
            publish(both[0], http, "room:1", "first of the new epoch")
            for stream in streams:
                assert stream.next_of("sse.reset", "sse.close").type == "sse.reset", what
            publish(both[1], http, "room:1", what)
            for stream in streams:
                while (event := stream.next_of("message", "sse.reset", "sse.close")).data != what:
                    assert event.data == "first of the new epoch"
            for server in both:
                with Stream(f"{server.url}/stream?channels=private,lobby&user=visitor") as visitor:
                    visitor.next_of("sse.open")
            for server, calls in zip(both, before, strict=True):
                eventually(lambda: made(server, http, signals, calls))  # noqa: B023
                eventually(lambda: "visitor" not in str(http.get(f"{server.url}/held").json()))  # noqa: B023
                assert health(server, http)["status"] == "HEALTHY"
        streams += [Stream(f"{server.url}/stream?channels=private&user=ann") for server in both]
        for server, what in zip(both, ("Timeout", "SystemExit"), strict=True):
            calls = break_functions(server, http, {"load_user": what, "authorize": what})
            eventually(lambda: made(server, http, ["load_user"], calls))  # noqa: B023
            calls = break_functions(server, http, {})
            eventually(lambda: made(server, http, ["load_user", "authorize"], calls))  # noqa: B023
        publish(both[0], http, ["room:1", "private"], "last")
        for stream in streams:
            assert stream.next_of("message", "sse.close").data == "last"
        for server in both:
            break_functions(server, http, dict.fromkeys(signals, "hang"))
        workers = [server.worker_pids()[0] for server in both]
        began = time.monotonic()
        for server in both:
            server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            assert stream.next_of("sse.close").json()["reason"] == "drain"
        eventually(lambda: all(has_ended(worker) for worker in workers), 30)
        stopped = time.monotonic() - began
    measurements.note(stopped_after=stopped)
    assert stopped < stretched(8)


def publish(server: Gunicorn, http: httpx.Client, channel: str | list[str], data: str) -> None:
    answer = http.post(f"{server.url}/publish", json={"data": data, "channel": channel})
    assert answer.status_code == 200, answer.text


def break_functions(server: Gunicorn, http: httpx.Client, errors: dict[str, str]) -> dict[str, int]:
    """Makes functions of the app raise errors from now on. Returns how often each was called until now."""
    calls: dict[str, int] = http.post(f"{server.url}/break", json=errors).json()
    return calls


def made(server: Gunicorn, http: httpx.Client, names: Iterable[str], before: dict[str, int]) -> bool:
    """Whether each of these functions was called since `before`."""
    calls = http.get(f"{server.url}/calls").json()
    return all(calls.get(name, 0) > before.get(name, 0) for name in names)
