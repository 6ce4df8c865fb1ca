"""Hooks and middlewares that treat the response of a stream like any other response.

Whatever they do: a client gets a whole head that fits the body, and all events, or the request fails at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import httpx
import pytest
from backports import zstd

from tests.apps import hooked
from tests.support.deadline import eventually, stretched
from tests.support.processes import NO_CONFIG, gunicorn
from tests.support.stream import Stream

from .test_servers import flask_run

#: The first words of the errors that this package logs about responses.
STARTS = "an after_request hook", "a WSGI middleware", "the head of a stream's", "a stream's response"
#: A line with such an error. Python puts nothing before the error if the app has a handler without a format.
ERROR = re.compile(rf"^(?:.*ERROR.*flask_sse_push[.\w]*: )?((?:{'|'.join(STARTS)}).*)$", re.MULTILINE)
#: The heartbeat of the servers, in seconds.
HEARTBEAT = 0.2


#: Opens a connection for each request. Without `verify=False` it would read all certificates of the system.
HTTP = httpx.Client(
    timeout=60, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
)


@dataclass
class Server:
    """A running server. Its log counts from the beginning of the test."""

    url: str
    log: Path
    read_from: int = 0

    def begin(self) -> None:
        """Makes a server that other tests have used report everything again."""
        assert HTTP.post(f"{self.url}/forget").status_code == 200
        eventually(lambda: kinds(self.url) == {})
        self.read_from = self.log.stat().st_size

    def said(self) -> str:
        return self.log.read_bytes()[self.read_from :].decode()

    def errors(self) -> list[str]:
        """The errors about responses that this package has logged, without time and name of the logger."""
        return ERROR.findall(self.said())


@contextlib.contextmanager
def serving(
    log: Path, app: str = "hooked", *options: str, config: Path = NO_CONFIG, **settings: object
) -> Iterator[Server]:
    """Runs one gevent worker whose broker is in its memory."""
    env = {"SSE_PUSH_BROKER_URL": "memory://", "SSE_PUSH_HEARTBEAT": str(HEARTBEAT)}
    env |= {f"SSE_PUSH_{key.upper()}": str(value) for key, value in settings.items()}
    with gunicorn(f"tests.apps.{app}:app", *options, env=env, log=log, config=config) as running:
        yield Server(running.url, log)


@contextlib.contextmanager
def served_by(name: str, log: Path) -> Iterator[Server]:
    """Runs tests/apps/hooked.py with a server or a class of gunicorn's workers."""
    settings = {"SSE_PUSH_HEARTBEAT": str(HEARTBEAT)}
    if name == "flask run":
        with flask_run("memory://", log, "tests.apps.hooked:app", **settings) as url:
            yield Server(url, log)
        return
    options = ["--threads", "4"] if name == "gthread" else []
    env = {"SSE_PUSH_BROKER_URL": "memory://", **settings}
    with gunicorn("tests.apps.hooked:app", *options, env=env, worker_class=name, log=log) as running:
        yield Server(running.url, log)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Gives the server of a name. The first test that needs the server starts it."""
    with contextlib.ExitStack() as stack:

        @cache
        def start(name: str) -> Server:
            return stack.enter_context(served_by(name, tmp_path_factory.mktemp("hooks") / "server.log"))

        yield start


@pytest.fixture
def server(request: pytest.FixtureRequest, running: Callable[[str], Server]) -> Server:
    """The server that the test's parameter names, or a gevent worker."""
    server = running(getattr(request, "param", "gevent"))
    server.begin()
    return server


def on(*names: str) -> pytest.MarkDecorator:
    """Runs a test on each of these servers."""
    return pytest.mark.parametrize("server", names, indirect=True)


def publish(url: str, data: object) -> str:
    """Publishes on channel `a` of the worker, and returns the cursor."""
    answer = HTTP.post(f"{url}/publish", json={"data": data, "channel": "a"})
    assert answer.status_code == 200
    return answer.text


def kinds(url: str) -> dict[str, str]:
    """The classes of the worker's open streams, by the id of their connection."""
    found: dict[str, str] = HTTP.get(f"{url}/kinds").json()
    return found


def serves(url: str, connection: str, kind: str) -> bool:
    """Whether the stream of a connection has this class."""
    return kinds(url)[connection] == kind


def check_events(url: str, headers: dict[str, str], missed: str = "missed", live: str = "live") -> str:
    """Checks that a client gets `sse.open`, a missed and a live event. Returns the class of its stream."""
    cursor = publish(url, "before")
    publish(url, "missed")
    with Stream(f"{url}/stream?channels=a", cursor=cursor, headers=headers) as stream:
        assert stream.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in stream.headers
        opening = stream.next_of("sse.open").json()
        assert opening["resumed"] is True
        assert stream.next_of("message").data == missed
        publish(url, "live")
        assert stream.next_of("message").data == live
        return kinds(url)[opening["connection"]]


@on("gevent", "gthread", "flask run")
def test_a_hook_that_reads_the_body_fails_at_once_and_says_what_to_do(server: Server) -> None:
    url = server.url
    limit = stretched(5)
    for hook in hooked.READING:
        began, already = time.monotonic(), len(server.said())
        headers = {"X-Hook": hook}
        answer = HTTP.get(f"{url}/stream?channels=a", headers=headers)
        assert (hook, answer.status_code) == (hook, 500)
        assert time.monotonic() - began < limit
        said = server.said()[already:]
        assert "RuntimeError: this response is a stream of server-sent events" in said, hook
        assert "`if response.is_streamed: return response`" in said
        assert HTTP.get(f"{url}/run", headers=headers).status_code == 500
    assert HTTP.get(f"{url}/").text == "hello"
    assert "one " in HTTP.get(f"{url}/run").text
    check_events(url, {})


def test_harmless_hooks_and_middlewares_leave_the_stream_as_it_is(server: Server) -> None:
    for hook in hooked.HARMLESS:
        assert (hook, check_events(server.url, {"X-Hook": hook})) == (hook, "ChunkedStream")
    for name in hooked.TRANSPARENT:
        assert (name, check_events(server.url, {"X-Middleware": name})) == (name, "ChunkedStream")
    assert HTTP.get(f"{server.url}/").text == "hello"
    removed = ["Content-Length: 512", "Transfer-Encoding: chunked", "Content-Encoding: zstd"]
    lines = server.errors()
    assert len(lines) == len(removed), lines
    for header, line in zip(removed, lines, strict=True):
        assert f"gave a stream's response the header {header}" in line


def test_hooks_that_replace_the_body_get_every_chunk(server: Server) -> None:
    for hook in ("generator", "closing", "chain", "context"):
        assert (hook, check_events(server.url, {"X-Hook": hook})) == (hook, "GeneratorStream")
    kind = check_events(server.url, {"X-Hook": "upper"}, "MISSED", "LIVE")
    assert kind == "GeneratorStream"
    (line,) = server.errors()
    assert line.startswith("an after_request hook replaced a stream's response body by a generator; let ")
    assert "worker_connections" in line


def test_middlewares_that_change_the_body_get_every_chunk(server: Server) -> None:
    for name in hooked.CHANGING:
        assert (name, check_events(server.url, {"X-Middleware": name})) == (name, "GeneratorStream")
    lines = server.errors()
    assert [line.partition(";")[0] for line in lines] == [
        "a WSGI middleware collects the response body, or holds back the body's first bytes",
        "a WSGI middleware changes the response body",
        "a stream's response has the status 202 ACCEPTED, set by an after_request hook or a WSGI middleware",
    ]


@on("gevent", "gthread", "flask run")
def test_a_middleware_that_collects_the_body_gets_an_end_of_it(server: Server) -> None:
    url = server.url
    cursor = publish(url, "before")
    publish(url, "missed")
    headers = {"X-Middleware": "collecting"}
    with Stream(f"{url}/stream?channels=a", cursor=cursor, headers=headers) as one:
        assert int(one.headers["content-length"]) > 0
        events = list(one)
    assert [event.data for event in events if event.type == "message"] == ["missed"]
    assert events[-1].json()["reason"] == "buffered"
    assert events[-1].json()["reconnect"] is True
    publish(url, "later")
    with Stream(f"{url}/stream?channels=a", cursor=one.cursor, headers=headers) as two:
        assert two.next_of("message").data == "later"
    (line,) = server.errors()
    assert line.startswith("a WSGI middleware collects the response body")
    eventually(lambda: kinds(url) == {})


@pytest.mark.parametrize(("name", "length"), [("length", 512), ("zstd", None)])
def test_a_middleware_that_only_sets_a_header_gets_one_error_and_a_body_without_chunk_headers_in_it(
    name: str, length: int | None, server: Server
) -> None:
    for _ in range(2):
        with Stream(f"{server.url}/stream?channels=a", headers={"X-Middleware": name}) as stream:
            publish(server.url, "live")
            assert stream.next_of("message").data == "live"
            if length is None:
                assert stream.headers["content-encoding"] == name
            else:
                with pytest.raises(EOFError):  # the connection ends with the body, so clients come back
                    stream._more()
    (line,) = server.errors()
    assert line.startswith("the head of a stream's response has Content-")


def test_head_requests_and_not_modified_answers_leave_the_connection_to_gunicorn(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60, verify=False) as http:
        for _ in range(2):
            assert http.head("/stream?channels=a").status_code == 200
            etag = {"If-None-Match": '"v1"', "X-Hook": "etag and 304"}
            assert http.get("/stream?channels=a", headers=etag).status_code == 304
        assert http.get("/").text == "hello"
        with http.stream("GET", "/stream?channels=a") as response:
            texts = response.iter_text()
            assert "sse.open" in next(texts)
            assert set(kinds(server.url).values()) == {"ChunkedStream"}
        assert server.errors() == []


def test_missed_events_of_many_chunks_pass_a_middleware_in_order(server: Server) -> None:
    cursor = publish(server.url, "before")
    for n in range(100):
        publish(server.url, {"n": n, "pad": "x" * 9_000})
    for name, kind in (("closing", "ChunkedStream"), ("comments", "GeneratorStream")):
        headers = {"X-Middleware": name}
        url = f"{server.url}/stream?channels=a"
        with Stream(url, cursor=cursor, headers=headers, receive_buffer=4096) as stream:
            opening = stream.next_of("sse.open").json()
            assert [event.json()["n"] for event in stream.take(100)] == list(range(100))
            eventually(partial(serves, server.url, opening["connection"], kind))


def test_flask_compress_never_makes_the_head_contradict_the_body(log: Path) -> None:
    with serving(log, "extended") as server:
        cursor = publish(server.url, "before")
        for _ in range(80):  # the encoder gives out no byte of a few small events
            publish(server.url, os.urandom(4_000).hex())
        headers = {"Accept-Encoding": "zstd"}
        with Stream(f"{server.url}/stream?channels=a", cursor=cursor, headers=headers) as stream:
            assert stream.headers["content-encoding"] == "zstd"
            decoder, text = zstd.ZstdDecompressor(), b""
            while b"sse.open" not in text:
                text += decoder.decompress(stream.chunk())
        (line,) = server.errors()
        assert "replaced a stream's response body by a" in line
        assert "Content-Encoding: zstd" in line
        assert "SSE_PUSH_HTTP_COMPRESSION" in line


def test_flask_compress_leaves_our_own_compression_alone(log: Path) -> None:
    with serving(log, "extended", http_compression="true") as server:
        with Stream(f"{server.url}/stream?channels=a", headers={"Accept-Encoding": "gzip, zstd"}) as stream:
            assert stream.headers["content-encoding"] == "gzip"
            inflate = zlib.decompressobj(wbits=31)
            assert b"sse.open" in inflate.decompress(stream.chunk())
            publish(server.url, "live")
            assert b"live" in inflate.decompress(stream.chunk())
        assert server.errors() == []


def test_what_runs_at_the_hand_over_and_what_at_the_end_of_the_stream(log: Path) -> None:
    """docs/deployment.md says so."""
    config = NO_CONFIG.with_name("post_request.conf.py")
    with serving(log, "extended", config=config) as server:

        def happened() -> list[str]:
            found: list[str] = HTTP.get(f"{server.url}/happened").json()
            return found

        with Stream(f"{server.url}/stream?channels=a") as stream:
            stream.next_of("sse.open")
            eventually(lambda: happened() == ["call_on_close"])
            eventually(lambda: "post_request /stream" in log.read_text())
            eventually(lambda: '"GET /stream?channels=a HTTP/1.1" 200' in log.read_text())
        eventually(lambda: happened() == ["call_on_close", "stream_closed"])


def test_without_epoll_streams_use_the_generator_transport_and_one_line_says_why(log: Path) -> None:
    config = NO_CONFIG.with_name("no_epoll.conf.py")
    with serving(log, config=config) as server:
        for _ in range(2):
            assert check_events(server.url, {}) == "WatchedStream"
        said = "streams use the generator transport; sockets cannot be hijacked: module 'select' has no"
        assert log.read_text().count(said) == 1


def test_demanding_the_hijack_without_epoll_fails_with_the_reason(log: Path) -> None:
    config = NO_CONFIG.with_name("no_epoll.conf.py")
    with serving(log, config=config, transport="hijack") as server:
        assert HTTP.get(f"{server.url}/stream?channels=a").status_code == 500
        assert "SSE_PUSH_TRANSPORT is 'hijack', but must be auto or generator here" in log.read_text()
        assert "Here no socket can: module 'select' has no attribute" in log.read_text()


def test_a_hook_that_collects_the_body_later_gets_an_end_of_it(server: Server) -> None:
    cursor = publish(server.url, "before")
    publish(server.url, "missed")
    address = f"{server.url}/stream?channels=a"
    with Stream(address, cursor=cursor, headers={"X-Hook": "collected"}) as stream:
        events = list(stream)
    assert [event.data for event in events if event.type == "message"] == ["missed"]
    assert events[-1].json()["reason"] == "buffered"
    (line,) = server.errors()
    assert line.startswith("an after_request hook replaced a stream's response body by a generator")
    eventually(lambda: kinds(server.url) == {})


@on("gevent", "gthread")
def test_a_response_that_is_closed_too_early_fails_and_says_why(server: Server) -> None:
    url = server.url
    for headers in [*({"X-Hook": hook} for hook in hooked.CLOSING), {"X-Middleware": "closed"}]:
        already = len(server.said())
        answer = HTTP.get(f"{url}/stream?channels=a", headers=headers)
        assert (headers, answer.status_code) == (headers, 500)
        assert "closed a stream's response before the server had sent it" in server.said()[already:]
    check_events(url, {})
