"""Processes that end in other ways than gunicorn's own: each stream still ends with an `sse.close`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.fault_setup import end_at_once
from tests.support.processes import ROOT, Gunicorn, accepts, free_port, gunicorn, has_ended
from tests.support.stream import Stream

from .conftest import Serve

HANDLERS = (
    "sys.exit",
    "KeyboardInterrupt",
    "chained",
    "chained, later",
    "all signals chained",
    "gevent.signal_handler",
    "a greenlet that exits",
)


def settle(server: Gunicorn) -> int:
    """Waits until the worker does nothing; returns its process id.

    gunicorn's gevent worker ignores an exit that interrupts a greenlet that serves a request.
    """
    (worker,) = server.worker_pids()
    seen: list[str] = []

    def does_nothing() -> bool:
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        seen.append(next(line for line in lines if line.startswith("voluntary_ctxt_switches")))
        return len(seen) > 3 and len(set(seen[-3:])) == 1

    eventually(does_nothing)
    return worker


def opened(url: str, count: int = 3) -> list[Stream]:
    streams = [Stream(f"{url}/stream?channels=a") for _ in range(count)]
    for stream in streams:
        stream.next_of("sse.open")
    return streams


def check_end(server: Gunicorn, streams: list[Stream]) -> None:
    """Sends SIGTERM to the worker. Checks that each stream gets `sse.close`, and the worker ends soon."""
    worker = settle(server)
    began = time.monotonic()
    os.kill(worker, signal.SIGTERM)
    for stream in streams:
        close = stream.next_of("sse.close").json()
        assert (close["reason"], close["reconnect"]) == ("drain", True)
        assert list(stream) == []
        assert stream.complete
    eventually(lambda: has_ended(worker))
    took = time.monotonic() - began
    print(f"the worker was gone after {took:.2f} s")
    assert took < stretched(3.5)
    end_at_once(server)  # before the next worker has imported the app


@contextlib.contextmanager
def publishing(announcer: MessageAnnouncer) -> Iterator[None]:
    """Publishes events as fast as possible until the block ends."""
    enough = threading.Event()

    def publish() -> None:
        while not enough.is_set():
            announcer.publish("x" * 100, channel="a")

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        enough.set()
        publisher.join(60)


@pytest.mark.parametrize("how", HANDLERS)
@pytest.mark.usefixtures("transport")
def test_an_app_that_handles_sigterm_itself_closes_its_streams(
    serve: Serve, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXIT", how)
    server = serve("tests.apps.exits:app")
    check_end(server, opened(server.url))


@pytest.mark.parametrize("how", ["sys.exit", "chained", "all signals chained"])
def test_a_handler_set_after_the_first_stream_closes_the_streams_too(
    serve: Serve, http: httpx.Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXIT", how)
    monkeypatch.setenv("SET_LATER", "1")
    server = serve("tests.apps.exits:app")
    streams = opened(server.url)
    assert http.get(f"{server.url}/set").text == "set"
    check_end(server, streams)


@pytest.mark.parametrize("how", ["sys.exit", "chained", "all signals chained"])
def test_a_gthread_worker_needs_no_hook_to_close_its_streams(
    serve: Serve, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXIT", how)
    server = serve("tests.apps.exits:app", "--threads", "6", worker_class="gthread")
    check_end(server, opened(server.url))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_gthread_worker_without_the_hook_closes_its_streams_on_ctrl_c(
    serve: Serve, number: signal.Signals
) -> None:
    server = serve("tests.apps.plain:app", "--threads", "6", worker_class="gthread")
    (stream,) = opened(server.url, 1)
    began = time.monotonic()
    server.process.send_signal(number)
    assert stream.next_of("sse.close").json()["reason"] == "drain"
    assert server.process.wait(60) == 0
    assert time.monotonic() - began < stretched(3.5)


def test_hooks_of_gunicorn_that_end_the_worker_close_its_streams(
    empty_valkey: str, log: Path, tmp_path: Path
) -> None:
    config = tmp_path / "hooks.conf.py"
    config.write_text(
        "import sys\n"
        "def worker_int(worker):\n    sys.exit(0)\n"
        "def worker_exit(server, worker):\n    sys.exit(0)\n"
    )
    for number in (signal.SIGTERM, signal.SIGQUIT):
        env = {"SSE_PUSH_BROKER_URL": empty_valkey}
        with gunicorn("tests.apps.plain:app", env=env, log=log, config=config) as server:
            (stream,) = opened(server.url, 1)
            os.kill(server.worker_pids()[0], number)
            assert stream.next_of("sse.close").json()["reason"] == "drain"


def test_an_exit_that_interrupts_the_dispatcher_is_not_lost(
    serve: Serve, empty_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy worker, gevent often calls the handler of SIGTERM while one of our greenlets runs."""
    monkeypatch.setenv("EXIT", "sys.exit")
    server = serve("tests.apps.exits:app")
    announcer = MessageAnnouncer.from_url(empty_valkey)
    for _ in range(3):
        streams = opened(server.url, 50)
        worker = settle(server)
        with publishing(announcer):
            streams[-1].next_of("message")
            os.kill(worker, signal.SIGTERM)
            streams[0].next_of("sse.close")
            eventually(partial(has_ended, worker))
        eventually(lambda: len(server.worker_pids()) == 1)
        for stream in streams:
            stream.close()
    announcer.close()


@pytest.mark.usefixtures("transport")
def test_a_client_that_reads_nothing_does_not_hold_up_the_end(serve: Serve, empty_valkey: str) -> None:
    server = serve(max_buffer=10_000_000)
    (worker,) = server.worker_pids()
    deaf = Stream(f"{server.url}/stream?channels=a", receive_buffer=4096)
    (hearing,) = opened(server.url, 1)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    for _ in range(70):
        announcer.publish_many([{"data": "x" * 9000, "channel": "a"}] * 10)
    announcer.publish("last", channel="a")
    assert hearing.take(701)[-1].data == "last"
    began = time.monotonic()
    os.kill(worker, signal.SIGTERM)
    assert hearing.next_of("sse.close").json()["reason"] == "drain"
    eventually(lambda: has_ended(worker))
    took = time.monotonic() - began
    print(f"the worker was gone after {took:.2f} s")
    assert took < stretched(6)
    deaf.close()


def test_a_forked_child_that_ends_leaves_its_parents_streams_alone(serve: Serve, http: httpx.Client) -> None:
    server = serve("tests.apps.forking:app")
    (stream,) = opened(server.url, 1)
    for path in ("exit", "terminate"):
        child = int(http.get(f"{server.url}/{path}").text)
        eventually(partial(has_ended, child))
    http.post(f"{server.url}/publish", json={"data": "still here", "channel": "a"})
    assert stream.next_of("message", "sse.close").data == "still here"


def test_ctrl_c_ends_flask_run_and_its_streams(empty_valkey: str, log: Path) -> None:
    port = free_port()
    env = {**os.environ, "SSE_PUSH_BROKER_URL": empty_valkey}
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain:app", "run", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        eventually(lambda: accepts(port), 20)
        streams = opened(f"http://127.0.0.1:{port}")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        for stream in streams:
            assert stream.next_of("sse.close").json()["reason"] == "drain"
        process.wait(60)
        assert time.monotonic() - began < stretched(3.5)
    finally:
        process.kill()
        process.wait(60)
