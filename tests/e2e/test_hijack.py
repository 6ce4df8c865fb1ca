"""The hijack transport in a real gunicorn: what it changes for streams, and what it must not change."""

from __future__ import annotations

import socket
import time
from importlib.util import find_spec
from pathlib import Path

import gunicorn
import httpx
import pytest
from gunicorn.config import Config

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.stream import Stream

from .conftest import Serve

#: Whether gunicorn has a choice of parsers for HTTP: since version 25.
HAS_CHOICE = hasattr(Config(), "http_parser")
HAS_FAST = HAS_CHOICE and find_spec("gunicorn_h1c") is not None
WHY = "gunicorn_h1c is not installed: it may need a C compiler, and gunicorn 25"
PARSERS = ["python", pytest.param("fast", marks=pytest.mark.skipif(not HAS_FAST, reason=WHY))]


@pytest.fixture(autouse=True)
def hijack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Demands the hijack transport, so that a silent fallback to the generator would be an error."""
    monkeypatch.setenv("SSE_PUSH_TRANSPORT", "hijack")


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with gunicorn's own parser of HTTP, and with gunicorn_h1c."""
    if HAS_CHOICE:
        monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--http-parser={request.param}")


def raw_socket(stream: Stream) -> socket.socket:
    return stream._socket


def send_too_much(stream: Stream, size: int) -> None:
    """Sends bytes after the request, then waits for an event."""
    raw_socket(stream).sendall(b"x" * size)
    stream.next()


@pytest.mark.usefixtures("parser")
def test_streams_do_not_count_toward_worker_connections(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    print(f"gunicorn {gunicorn.__version__}")
    server = serve("tests.apps.plain:app", "--worker-connections", "5")
    streams = [Stream(f"{server.url}/stream?channels=a") for _ in range(100)]
    for stream in streams:
        stream.next_of("sse.open")
    assert http.get(f"{server.url}/").text == "hello"
    assert http.get(f"{server.url}/stats").json()["streams"] == 100
    MessageAnnouncer.from_url(empty_valkey).publish("all of you", channel="a")
    assert {stream.next().data for stream in streams} == {"all of you"}
    text = server.log.read_text()
    assert "Ignoring EPIPE" in text
    assert "Traceback" not in text


def test_the_first_stream_exempts_the_apps_modules_from_garbage_collection(
    serve: Serve, http: httpx.Client
) -> None:
    server = serve()

    def frozen() -> int:
        found: int = http.get(f"{server.url}/stats").json()["frozen"]
        return found

    assert frozen() == 0
    for _ in range(2):
        Stream(f"{server.url}/stream").next_of("sse.open")
    exempt = frozen()
    assert exempt > 10_000
    Stream(f"{server.url}/stream").next_of("sse.open")
    assert frozen() <= exempt  # only once: objects of later streams are collected


def test_a_new_worker_can_open_50_streams_at_once(serve: Serve) -> None:
    server = serve()
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(50)]
    for client in clients:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}
    for client in clients:
        client.close()


@pytest.mark.usefixtures("parser")
def test_the_app_sets_status_line_headers_and_cookies(serve: Serve) -> None:
    server = serve("tests.apps.decorated:app")
    with Stream(f"{server.url}/stream") as stream:
        assert stream.status == 200
        assert stream.headers["x-app"] == "shop"
        assert stream.headers["set-cookie"].startswith("seen=yes")
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["transfer-encoding"] == "chunked"
        stream.next_of("sse.open")


def test_a_stream_ends_as_soon_as_its_client_has_left(serve: Serve, http: httpx.Client) -> None:
    server = serve(heartbeat=30)
    streams = [Stream(f"{server.url}/stream") for _ in range(50)]
    for stream in streams:
        stream.next_of("sse.open")
    began = time.monotonic()
    for stream in streams[:25]:
        stream.close()
    for stream in streams[25:]:
        stream.reset()
    eventually(lambda: http.get(f"{server.url}/stats").json()["streams"] == 0, 5)
    assert time.monotonic() - began < stretched(1.0)


@pytest.mark.usefixtures("parser")
def test_bytes_that_a_client_sends_are_ignored_up_to_a_limit(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        raw_socket(stream).sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        announcer.publish("still here", channel="a")
        assert stream.next().data == "still here"
        with pytest.raises((EOFError, OSError)):
            send_too_much(stream, 1_000_000)
    eventually(lambda: http.get(f"{server.url}/stats").json()["streams"] == 0, 5)


@pytest.mark.usefixtures("parser")
def test_missed_events_come_before_the_socket_is_hijacked_and_live_events_after(
    serve: Serve, empty_valkey: str
) -> None:
    server = serve()
    announcer = MessageAnnouncer.from_url(empty_valkey)
    cursor = announcer.publish("seen", channel="a")
    announcer.publish_many([{"data": {"n": n, "pad": "x" * 5000}, "channel": "a"} for n in range(500)])
    with Stream(f"{server.url}/stream?channels=a", cursor=cursor, receive_buffer=4096) as stream:
        stream.next_of("sse.open")
        for n in range(500, 520):
            announcer.publish({"n": n}, channel="a")
        assert [event.json()["n"] for event in stream.take(520)] == list(range(520))


def test_a_server_without_hijacking_says_so_in_its_log(empty_valkey: str, log: Path) -> None:
    from .test_servers import flask_run

    with flask_run(empty_valkey, log) as url:
        assert httpx.get(f"{url}/stream", trust_env=False, timeout=60).status_code == 500
    assert "SSE_PUSH_TRANSPORT is 'hijack', but must be auto or generator here" in log.read_text()


def test_events_of_one_coalesce_window_come_in_one_chunk(serve: Serve, empty_valkey: str) -> None:
    server = serve(coalesce=1.5)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        for n in range(20):
            announcer.publish(n, channel="a")
        chunks = [stream.chunk()]
        while sum(chunk.count(b"data: ") for chunk in chunks) < 20:
            chunks.append(stream.chunk())
        assert len(chunks) <= 2
