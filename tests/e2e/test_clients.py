"""Clients that leave, reset or never read, heartbeats, and limits of one worker."""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Iterator

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.processes import Gunicorn, gunicorn
from tests.support.stream import Stream

from .conftest import Serve

needs_own_server = pytest.mark.usefixtures("transport")


@pytest.fixture(scope="module", params=["generator", "hijack"])
def server(
    request: pytest.FixtureRequest, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """One server of each transport, for the tests that can share it. They leave no stream open."""
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_TRANSPORT": request.param}
    env |= {"SSE_PUSH_HEARTBEAT": "0.5", "SSE_PUSH_HTTP_COMPRESSION": "true"}
    log = tmp_path_factory.mktemp("clients") / "server.log"
    with gunicorn("tests.apps.plain:app", env=env, log=log) as running:
        yield running


def open_streams(server: Gunicorn, http: httpx.Client) -> int:
    return int(http.get(f"{server.url}/stats").json()["streams"])


def test_100_connections_reset_at_once_leave_no_stream_open(server: Gunicorn, http: httpx.Client) -> None:
    streams = [Stream(f"{server.url}/stream") for _ in range(100)]
    for stream in streams:
        stream.next_of("sse.open")
    assert open_streams(server, http) == 100
    for stream in streams:
        stream.reset()
    eventually(lambda: open_streams(server, http) == 0, 5)
    assert "Traceback" not in server.log.read_text()


def test_streams_of_clients_that_close_end_after_two_heartbeats(server: Gunicorn, http: httpx.Client) -> None:
    for _ in range(20):
        with Stream(f"{server.url}/stream") as stream:
            stream.next_of("sse.open")
    eventually(lambda: open_streams(server, http) == 0, 5)


@needs_own_server
def test_heartbeats_come_after_silence_with_a_newer_cursor(serve: Serve, empty_valkey: str) -> None:
    server = serve(heartbeat=1, probe=0.2)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        opened = stream.next_of("sse.open")
        assert opened.json()["heartbeat"] == 1.0
        first, second = stream.next(), stream.next()
        assert first.type == second.type == "sse.heartbeat"
        assert first.data == "{}"
        for before, after in ((opened, first), (first, second)):
            assert 0.2 < after.at - before.at < 1 + stretched(0.6)
        assert opened.id
        assert first.id
        assert second.id
        assert opened.id < first.id < second.id
        cursor = second.id
    MessageAnnouncer.from_url(empty_valkey).publish("missed", channel="a")
    with Stream(f"{server.url}/stream?channels=a", cursor=cursor) as stream:
        assert stream.next().json()["resumed"] is True
        assert stream.next().data == "missed"


@needs_own_server
def test_traffic_postpones_the_heartbeat(serve: Serve, empty_valkey: str) -> None:
    server = serve(heartbeat=3)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        until = time.monotonic() + 4
        types = []
        while time.monotonic() < until:
            announcer.publish("tick", channel="a")
            types.append(stream.next().type)
            time.sleep(0.3)
        assert set(types) == {"message"}


@needs_own_server
def test_a_slow_client_gets_a_close_and_can_resume(serve: Serve, empty_valkey: str) -> None:
    server = serve(max_buffer=50_000, write_timeout=300)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    # The buffer has room for whole segments. With a smaller one, the kernel sends ever later.
    slow = Stream(f"{server.url}/stream?channels=a", receive_buffer=131_072)
    slow.next_of("sse.open")
    for n in range(900):
        announcer.publish({"n": n, "pad": "x" * 9000}, channel="a")
    got = []
    for event in slow:  # now it reads until the stream ends
        if event.type == "message":
            got.append(event.json()["n"])
        else:
            last = event
    assert last.type == "sse.close"
    assert last.json()["reason"] == "slow"
    assert slow.complete
    while len(got) < 900:
        with Stream(f"{server.url}/stream?channels=a", cursor=slow.cursor) as again:
            assert again.next().json()["resumed"] is True
            got += [event.json()["n"] for event in again.take(900 - len(got))]
    assert got == list(range(900))


def test_http_1_0_gets_an_unchunked_stream(server: Gunicorn, valkey_url: str, http: httpx.Client) -> None:
    with Stream(f"{server.url}/stream?channels=a", version="1.0") as stream:
        assert stream.status == 200
        assert "transfer-encoding" not in stream.headers
        stream.next_of("sse.open")
        MessageAnnouncer.from_url(valkey_url).publish("hi", channel="a")
        assert stream.next_of("message").data == "hi"
    eventually(lambda: open_streams(server, http) == 0, 5)


@needs_own_server
def test_a_worker_refuses_streams_beyond_max_streams_and_still_answers_pages(
    serve: Serve, http: httpx.Client
) -> None:
    server = serve(max_streams=5)
    streams = [Stream(f"{server.url}/stream") for _ in range(5)]
    for stream in streams:
        stream.next_of("sse.open")
    answer = http.get(f"{server.url}/stream")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == 1203
    assert answer.json()["retry"] is True
    assert http.get(f"{server.url}/").text == "hello"


@pytest.mark.parametrize("when", ["with the request", "later"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_half_closed_client_gets_all_events(
    server: Gunicorn, valkey_url: str, http: httpx.Client, when: str, encoding: str
) -> None:
    """`nc -N` and some proxies close their side of the connection after the request."""
    announcer = MessageAnnouncer.from_url(valkey_url)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        request = f"GET /stream?channels=a HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {encoding}\r\n\r\n"
        client.sendall(request.encode())
        if when == "with the request":
            client.shutdown(socket.SHUT_WR)
        body = Body(client, encoding)
        body.until("event: sse.open")
        if when == "later":
            client.shutdown(socket.SHUT_WR)
        for number in range(3):
            announcer.publish(f"event {number}", channel="a")
            body.until(f"data: event {number}\n\n")
            body.until("event: sse.heartbeat")
        assert open_streams(server, http) == 1
        body.close()
    eventually(lambda: open_streams(server, http) == 0, 5)


class Body:
    """The body of a response in HTTP/1.1 chunks, as text."""

    def __init__(self, client: socket.socket, encoding: str) -> None:
        self._file = client.makefile("rb")
        self._decoder = zlib.decompressobj(31) if encoding == "gzip" else None
        assert self._file.readline().startswith(b"HTTP/1.1 200")
        while self._file.readline() != b"\r\n":
            pass
        self._text = ""

    def close(self) -> None:
        self._file.close()

    def until(self, text: str) -> None:
        """Reads the body until `text` has come."""
        while text not in self._text:
            size = int(self._file.readline(), 16)
            assert size > 0, f"the stream ended before {text!r}"
            chunk = self._file.read(size + 2)[:-2]
            self._text += (self._decoder.decompress(chunk) if self._decoder else chunk).decode()
        self._text = self._text.partition(text)[2]


@needs_own_server
def test_a_client_that_reads_slowly_is_not_stuck(serve: Serve, empty_valkey: str, http: httpx.Client) -> None:
    """One client reads 10 kB a second, another reads nothing. The kernel has megabytes for both."""
    timeout = 3.0
    server = serve(heartbeat=0.5, write_timeout=timeout, max_buffer=50_000_000)
    slow, stuck = (Stream(f"{server.url}/stream?channels=a", receive_buffer=4096) for _ in range(2))
    announcer = MessageAnnouncer.from_url(empty_valkey)
    big = [{"data": "x" * 9_900, "channel": "a"}] * 100
    for step in range(round(3 * timeout / 0.4)):
        if step < 9:
            announcer.publish_many(big)
        slow._socket.recv(4096)
        time.sleep(0.4)
    assert open_streams(server, http) == 1
    assert slow._socket.recv(4096)
    slow.close()
    stuck.close()
