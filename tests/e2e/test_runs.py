"""Runs under gunicorn: any worker reads and stops them, and readers learn when their worker has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import httpx

from tests.support.deadline import eventually, stretched
from tests.support.processes import Gunicorn
from tests.support.run_reader import reader_on
from tests.support.stream import Received, Stream

from .conftest import Serve

APP = "tests.apps.runs:app"


def start(server: Gunicorn, key: str, numbers: int, pause: float) -> dict[str, Any]:
    # Each call opens a new connection, so any worker may take it.
    answer = httpx.post(
        f"{server.url}/start/{key}", params={"numbers": numbers, "pause": pause}, timeout=60, trust_env=False
    )
    started: dict[str, Any] = answer.raise_for_status().json()
    return started


def read(server: Gunicorn, key: str, cursor: str) -> Stream:
    return Stream(f"{server.url}/stream?channels=run:{key}", cursor=cursor, timeout=40)


def rest(stream: Stream) -> tuple[str, Received]:
    """Returns the text up to the end of the run, and its `run.end`."""
    text = ""
    while (event := stream.next_of("run.text", "run.end")).type == "run.text":
        text += event.json()["text"]
    return text, event


def test_readers_on_any_worker_resume_and_any_worker_can_stop_a_run(serve: Serve) -> None:
    server = serve(APP, workers=2)
    run = start(server, "a", 100, 0.02)
    assert start(server, "a", 1, 0)["started"] is False
    first = read(server, "a", run["cursor"])
    before = first.next_of("run.text").json()["text"]
    first.reset()
    streams = [read(server, "a", first.cursor or "") for _ in range(8)]
    whole = "".join(f"{number} " for number in range(100))
    for stream in streams:
        text, end = rest(stream)
        assert before + text == whole
        assert end.json()["status"] == "done"
    endless = start(server, "b", 100_000, 0.02)
    seen = read(server, "b", endless["cursor"])
    seen.next_of("run.text")
    pids: set[int] = set()
    while len(pids) < 2:  # the first one stops the run, the other one has nothing left to stop
        pids.add(httpx.post(f"{server.url}/stop/b", trust_env=False, timeout=60).json()["pid"])
    assert rest(seen)[1].json()["status"] == "stopped"


def follow(server: Gunicorn, cursor: str, seconds: float) -> tuple[str, Received]:
    """Reads the run "a" to its end as a browser does: connects again whenever the stream ends."""
    text = ""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, EOFError), read(server, "a", cursor) as stream:
            while True:
                event = stream.next_of("run.text", "run.end")
                cursor = stream.cursor or cursor
                if event.type == "run.end":
                    return text, event
                text += event.json()["text"]
        time.sleep(0.05)
    raise AssertionError(f"the run has not ended within {seconds} s")


def test_a_run_whose_worker_is_killed_fails_within_30_seconds(serve: Serve) -> None:
    server = serve(APP, workers=2)
    run = start(server, "a", 100_000, 0.02)
    with read(server, "a", run["cursor"]) as stream:
        assert stream.next_of("run.text").json()["text"].startswith("0 ")
    reader = reader_on(server, "a", lambda pid: pid != run["pid"])
    os.kill(run["pid"], signal.SIGKILL)
    text, end = follow(server, run["cursor"], stretched(30))
    assert end.json() | {"run": ""} == {"run": "", "status": "failed", "error": "WorkerLost"}
    assert text.startswith("0 ")
    assert reader.read().chunks[-1] == {"type": "error", "errorText": "the run failed: WorkerLost"}
    assert reader.is_done
    assert follow(server, run["cursor"], 60)[1].id == end.id
    assert start(server, "a", 1, 0)["started"] is True


def test_a_run_continues_to_its_end_while_its_worker_is_replaced(serve: Serve) -> None:
    server = serve(APP, workers=1)
    run = start(server, "a", 150, 0.02)
    with read(server, "a", run["cursor"]) as stream:
        stream.next_of("run.text")
        server.process.send_signal(signal.SIGHUP)
        assert stream.next_of("sse.close").json()["reason"] == "drain"
    text, end = follow(server, run["cursor"], 120)
    assert text == "".join(f"{number} " for number in range(150))
    assert end.json()["status"] == "done"
    eventually(lambda: run["pid"] not in server.worker_pids(), 20)


def test_ctrl_c_ends_runs_at_once_and_tells_their_readers(serve: Serve) -> None:
    server = serve(APP, workers=1)
    run = start(server, "a", 100_000, 0.02)
    with read(server, "a", run["cursor"]) as stream:
        stream.next_of("run.text")
    began = time.monotonic()
    server.stop(signal.SIGINT)
    assert time.monotonic() - began < stretched(5)
    end = follow(serve(APP, workers=1), run["cursor"], 60)[1]
    assert end.json()["error"] == "WorkerStopped"
