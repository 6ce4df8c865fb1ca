"""Servers without room for another stream, and several processes on `memory://`: the log says what to do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deadline import eventually
from tests.support.processes import ROOT, accepts, free_port, gunicorn
from tests.support.stream import Stream

GUNICORN = (
    "-m gunicorn -k gevent -b 127.0.0.1:{port} tests.apps.plain:app"  # WEB_CONCURRENCY sets the workers
)
FLASK = "-m flask --app tests.apps.plain run --port {port} --no-debugger"
UWSGI = (
    "-c import pyuwsgi;pyuwsgi.run(['--http-socket','127.0.0.1:{port}','--module','tests.apps.plain:app',"
    "'--need-app','--die-on-term','--threads','2',%s])"
)


@contextlib.contextmanager
def python(arguments: str, broker: str, log: Path) -> Iterator[str]:
    """Runs a server until the block ends; gives its address."""
    port = free_port()
    command = arguments.format(port=port)
    split = command.split(" ", 1) if command.startswith("-c") else command.split()
    env = {**os.environ, "SSE_PUSH_BROKER_URL": broker}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *split], cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        eventually(lambda: accepts(port), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait(60)


def lines(log: Path, part: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if part in line]


# -- full ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker_class", "options", "environ", "streams", "told"),
    [
        (
            "gthread",
            ["--threads", "4"],
            {},
            3,
            [
                "one of the worker's 4 threads busy, and streams may take 3 of them",
                "`gunicorn -k gevent tests.apps.plain:app`",
                "more threads",
            ],
        ),
        (
            "gevent",
            ["--worker-connections", "4"],
            {"SSE_PUSH_TRANSPORT": "generator"},
            3,
            ["one of the worker's 4 connections busy", "--worker-connections"],
        ),
        ("gevent", [], {"SSE_PUSH_MAX_STREAMS": "2"}, 2, ["SSE_PUSH_MAX_STREAMS is 2", "gunicorn --workers"]),
    ],
    ids=["threads", "connections", "setting"],
)
def test_a_full_worker_refuses_streams_and_says_why_once(
    empty_valkey: str,
    log: Path,
    worker_class: str,
    options: list[str],
    environ: dict[str, str],
    streams: int,
    told: list[str],
) -> None:
    env = {"SSE_PUSH_BROKER_URL": empty_valkey, **environ}
    with (
        gunicorn("tests.apps.plain:app", *options, env=env, worker_class=worker_class, log=log) as running,
        contextlib.ExitStack() as opened,
    ):
        for _ in range(streams):
            opened.enter_context(Stream(f"{running.url}/stream")).next_of("sse.open")
        for _ in range(3):
            assert httpx.get(f"{running.url}/stream", trust_env=False).status_code == 503
            assert httpx.get(running.url, trust_env=False).text == "hello"
        (line,) = lines(log, "has no room for another stream, and refuses it")
        for part in told:
            assert part in line


# -- memory:// with several processes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (GUNICORN, "gunicorn runs 2 workers"),
        (UWSGI % "'--master','--processes','2'", "uWSGI runs 2 processes"),
        (UWSGI % "'--processes','1'", None),
        (FLASK, None),
        (f"{FLASK} --reload", "begins anew at each reload of the app"),
        (
            "-c from tests.apps.plain import app;app.run(port={port},threaded=False,processes=2)",
            "the server runs several processes",
        ),
    ],
    ids=["gunicorn", "uWSGI", "uWSGI, one process", "flask run", "flask run --reload", "processes"],
)
def test_several_processes_on_memory_are_told_once(
    log: Path, server: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with python(server, "memory://", log) as url, Stream(f"{url}/stream") as stream:
        stream.next_of("sse.open")
        found = lines(log, "SSE_PUSH_BROKER_URL is memory://")
    assert len(found) == (told is not None)
    if told:
        assert told in found[0]
        assert "set SSE_PUSH_BROKER_URL=redis://" in found[0]
