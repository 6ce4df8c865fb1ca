"""Workers that fork: their children harm no stream, and publish over connections of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn, connections_of, gunicorn, has_ended, processor_seconds
from tests.support.stream import Received, Stream

from .conftest import Serve

WAYS = ("os.fork", "Process", "ProcessPoolExecutor", "subprocess", "native thread", "spawn", "forkserver")
#: The ways in which the child is a copy of the worker.
COPIES = ("os.fork", "Process", "ProcessPoolExecutor", "native thread")


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """One worker for the whole file. Each test waits until the children that it started are gone."""
    log = tmp_path_factory.mktemp("forks") / "server.log"
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_HEARTBEAT": "0.5"}
    with gunicorn("tests.apps.forking:app", env=env, log=log) as running:
        yield running


@pytest.fixture
def announcer(valkey_url: str) -> Iterator[MessageAnnouncer]:
    announcer = MessageAnnouncer.from_url(valkey_url)
    yield announcer
    announcer.close()


def open_streams(server: Gunicorn, count: int, channels: str = "a") -> list[Stream]:
    streams = [Stream(f"{server.url}/stream?channels={channels}") for _ in range(count)]
    for stream in streams:
        stream.next_of("sse.open")
    return streams


def start_child(server: Gunicorn, way: str, sleep: str, seconds: float) -> int:
    """Makes the worker fork. Returns the process id of the child.

    gunicorn ends a child within a second if the child lets gevent run.
    """
    with httpx.Client(timeout=60, trust_env=False, verify=False) as http:
        response = http.post(f"{server.url}/fork", params={"way": way, "sleep": sleep, "seconds": seconds})
        assert response.status_code == 200
    return int(response.text)


def heard(server: Gunicorn, watcher: Stream, child: int) -> str | None:
    """Returns what a child says next. Returns None if gunicorn has ended the child instead.

    gunicorn may end a child that publishes, since publishing lets gevent run.
    """
    try:
        ((said, pid),) = watcher.next_of("message", "sse.close").json().items()
    except TimeoutError:
        assert f"[{child}] [INFO] Parent changed" in server.log.read_text()
        return None
    assert pid == child
    return str(said)


def publish(announcer: MessageAnnouncer, first: int, count: int = 20) -> list[str]:
    for number in range(first, first + count):
        announcer.publish(str(number), channel="a")
    return [str(number) for number in range(first, first + count)]


def take(stream: Stream, count: int) -> list[str]:
    return [stream.next_of("message", "sse.close", "sse.reset").data for _ in range(count)]


@pytest.mark.parametrize("way", WAYS)
def test_a_child_publishes_and_leaves_all_streams_alone(
    server: Gunicorn, announcer: MessageAnnouncer, way: str
) -> None:
    (worker,) = server.worker_pids()
    streams, watcher = open_streams(server, 20), Stream(f"{server.url}/stream?channels=children", timeout=20)
    watcher.next_of("sse.open")
    held = connections_of(worker)
    child = start_child(server, way, "native", 1.5)
    while heard(server, watcher, child) is None:
        child = start_child(server, way, "native", 1.5)
    assert os.path.exists(f"/proc/{child}")
    assert connections_of(child) & held == set()
    expected = publish(announcer, 0)
    assert [take(stream, 20) for stream in streams] == [expected] * 20
    for number, stream in enumerate(streams[:10]):
        stream.reset() if number % 2 else stream.close()
    younger = open_streams(server, 15)
    expected = publish(announcer, 20)
    began, used = time.monotonic(), processor_seconds(worker)
    assert [take(stream, 20) for stream in (*streams[10:], *younger)] == [expected] * 25
    assert heard(server, watcher, child) in ("ended", None)
    share = (processor_seconds(worker) - used) / (time.monotonic() - began)
    print(f"the worker kept a processor busy for {share:.0%} of the time")
    assert share < 0.3
    assert {stream.next().type for stream in (*streams[10:], *younger)} == {"sse.heartbeat"}
    eventually(partial(has_ended, child))


@pytest.mark.parametrize("way", ["os.fork", "Process", "ProcessPoolExecutor"])
def test_a_child_that_runs_gevent_sends_nothing_to_the_streams_of_its_parent(
    server: Gunicorn, announcer: MessageAnnouncer, way: str
) -> None:
    streams = open_streams(server, 20)
    child = start_child(server, way, "gevent", 0.8)
    expected: list[str] = []

    def ended() -> bool:
        expected.extend(publish(announcer, len(expected), 5))
        return has_ended(child)

    eventually(ended)
    assert [take(stream, len(expected)) for stream in streams] == [expected] * 20
    assert {stream.next().type for stream in streams} == {"sse.heartbeat"}


@pytest.mark.usefixtures("transport")
def test_requests_for_streams_are_answered_by_the_parent_only(
    serve: Serve, announcer: MessageAnnouncer, http: httpx.Client
) -> None:
    """Some requests are in the app's hooks when the worker forks, others come while the child runs gevent."""
    server = serve("tests.apps.forking:app", heartbeat=0.5)
    for hook in ("before", "rule", "after"):
        with ThreadPoolExecutor() as pool:
            urls = [f"{server.url}/stream?channels=a&slow={hook}"] * 5
            requested = [pool.submit(Stream, url) for url in urls]
            eventually(lambda: http.get(f"{server.url}/slow").json() == 5)
            child = start_child(server, "os.fork", "gevent", 0.8)
            streams = [*open_streams(server, 10), *[stream.result() for stream in requested]]
        for stream in streams[10:]:
            stream.next_of("sse.open")
        eventually(partial(has_ended, child))
        expected = publish(announcer, 0)
        assert [take(stream, 20) for stream in streams] == [expected] * 15
        assert {stream.next().type for stream in streams} == {"sse.heartbeat"}


def test_a_child_leaves_connections_that_are_about_to_be_accepted_to_its_parent(
    server: Gunicorn, http: httpx.Client
) -> None:
    """While the worker is stopped, clients connect, and then the rest of a request arrives that forks."""
    (worker,) = server.worker_pids()
    held = connections_of(worker)
    with contextlib.ExitStack() as stack:

        def send(text: str) -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
            client.sendall(text.encode())
            return client

        forking = send("POST /fork?way=os.fork&sleep=gevent&seconds=0.3 HTTP/1.1\r\n")
        eventually(lambda: connections_of(worker) - held)
        # When this request is answered, the worker waits for the rest of the other request.
        assert http.get(f"{server.url}/slow").json() == 0
        os.kill(worker, signal.SIGSTOP)
        clients = [send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n") for _ in range(5)]
        forking.sendall(b"Host: test\r\nContent-Length: 0\r\n\r\n")
        os.kill(worker, signal.SIGCONT)
        child = int(body(forking))
        assert [body(client) for client in clients] == [b"0"] * 5
        eventually(partial(has_ended, child))
    assert "StreamServer" not in server.log.read_text()


def body(client: socket.socket) -> bytes:
    response = HTTPResponse(client)
    response.begin()
    return response.read()


@pytest.mark.parametrize("sleep", ["native", "gevent"])
def test_a_run_goes_on_in_the_parent_only(server: Gunicorn, tmp_path: Path, sleep: str) -> None:
    """One child is made in a view, another by the run itself."""
    (worker,) = server.worker_pids()
    notes = tmp_path / "steps"
    with httpx.Client(timeout=60, trust_env=False, verify=False) as http:
        arguments: dict[str, str | int] = {"key": sleep, "path": str(notes), "steps": 30, "forks_at": 15}
        cursor = http.post(f"{server.url}/run", params=arguments).text
    (stream,) = [Stream(f"{server.url}/stream?channels=run:{sleep}", cursor=cursor)]
    eventually(lambda: notes.read_text().count("\n") >= 5)
    child = start_child(server, "os.fork", sleep, 0.8)
    events = list(run_events(stream))
    assert "".join(event.json()["text"] for event in events[:-1]) == "".join(f"{step} " for step in range(30))
    assert events[-1].json()["status"] == "done"
    steps = [line.split() for line in notes.read_text().splitlines()]
    assert steps == [[str(worker), str(step)] for step in [*range(30), "end"]]
    eventually(partial(has_ended, child))


def run_events(stream: Stream) -> Iterator[Received]:
    """Yields the events of a run, the last of which is `run.end`."""
    for _ in range(1000):
        event = stream.next_of("run.text", "run.end")
        yield event
        if event.type == "run.end":
            return
    raise AssertionError("the run does not end")
