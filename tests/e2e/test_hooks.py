"""Hooks and middlewares that treat the response of a stream like any other response.

Whatever they do: a client gets a whole head that fits the body, and all events, or the request fails at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.apps import hooked
from tests.support.deadline import stretched
from tests.support.processes import NO_CONFIG, Gunicorn, gunicorn
from tests.support.stream import Stream

from .test_servers import flask_run

#: The first words of the errors that this package logs about responses.
STARTS = "an after_request hook", "a WSGI middleware", "the head of a stream's", "a stream's response"
#: The heartbeat of the servers, in seconds.
HEARTBEAT = 1.0


@contextlib.contextmanager
def serving(
    log: Path, app: str = "hooked", *options: str, config: Path = NO_CONFIG, **settings: object
) -> Iterator[Gunicorn]:
    """Runs one gevent worker whose broker is in its memory."""
    env = {"SSE_PUSH_BROKER_URL": "memory://", "SSE_PUSH_HEARTBEAT": str(HEARTBEAT)}
    env |= {f"SSE_PUSH_{key.upper()}": str(value) for key, value in settings.items()}
    with gunicorn(f"tests.apps.{app}:app", *options, env=env, log=log, config=config) as server:
        yield server


def publish(url: str, data: object) -> str:
    """Publishes on channel `a` of the worker, and returns the cursor."""
    answer = httpx.post(f"{url}/publish", json={"data": data, "channel": "a"}, trust_env=False, timeout=60)
    return answer.text


def kinds(url: str) -> dict[str, str]:
    """The classes of the worker's open streams, by the id of their connection."""
    found: dict[str, str] = httpx.get(f"{url}/kinds", trust_env=False, timeout=60).json()
    return found


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


def errors(log: Path) -> list[str]:
    """The lines that this package has logged at level ERROR. Python logs them without their level."""
    return [line for line in log.read_text().splitlines() if line.startswith(STARTS)]


@pytest.mark.parametrize("server", ["gevent", "gthread", "flask run"])
def test_a_hook_that_reads_the_body_fails_at_once_and_says_what_to_do(server: str, log: Path) -> None:
    with contextlib.ExitStack() as running:
        if server == "flask run":
            url = running.enter_context(flask_run("memory://", log, "tests.apps.hooked:app"))
        else:
            options = ["--threads", "4"] if server == "gthread" else []
            env = {"SSE_PUSH_BROKER_URL": "memory://"}
            started = gunicorn("tests.apps.hooked:app", *options, env=env, worker_class=server, log=log)
            url = running.enter_context(started).url
        for hook in hooked.READING:
            began, size = time.monotonic(), log.stat().st_size
            headers = {"X-Hook": hook}
            answer = httpx.get(f"{url}/stream?channels=a", headers=headers, trust_env=False, timeout=60)
            assert (hook, answer.status_code) == (hook, 500)
            assert time.monotonic() - began < stretched(5)
            said = log.read_text()[size:]
            assert "RuntimeError: this response is a stream of server-sent events" in said, hook
            assert "`if response.is_streamed: return response`" in said
            assert httpx.get(f"{url}/run", headers=headers, trust_env=False, timeout=60).status_code == 500
        assert httpx.get(f"{url}/", trust_env=False, timeout=60).text == "hello"
        assert "one " in httpx.get(f"{url}/run", trust_env=False, timeout=60).text
        check_events(url, {})


def test_harmless_hooks_and_middlewares_leave_the_stream_as_it_is(log: Path) -> None:
    with serving(log) as server:
        for hook in hooked.HARMLESS:
            assert (hook, check_events(server.url, {"X-Hook": hook})) == (hook, "ChunkedStream")
        for name in hooked.TRANSPARENT:
            assert (name, check_events(server.url, {"X-Middleware": name})) == (name, "ChunkedStream")
        assert httpx.get(f"{server.url}/").text == "hello"
        removed = ["Content-Length: 512", "Transfer-Encoding: chunked", "Content-Encoding: zstd"]
        lines = errors(log)
        assert len(lines) == len(removed), lines
        for header, line in zip(removed, lines, strict=True):
            assert f"gave a stream's response the header {header}" in line


def test_hooks_that_replace_the_body_get_every_chunk(log: Path) -> None:
    with serving(log) as server:
        for hook in ("generator", "closing", "chain", "context"):
            assert (hook, check_events(server.url, {"X-Hook": hook})) == (hook, "GeneratorStream")
        kind = check_events(server.url, {"X-Hook": "upper"}, "MISSED", "LIVE")
        assert kind == "GeneratorStream"
        (line,) = errors(log)
        assert line.startswith("an after_request hook replaced a stream's response body by a generator; let ")
        assert "worker_connections" in line


def test_middlewares_that_change_the_body_get_every_chunk(log: Path) -> None:
    with serving(log) as server:
        for name in hooked.CHANGING:
            assert (name, check_events(server.url, {"X-Middleware": name})) == (name, "GeneratorStream")
        lines = errors(log)
        assert [line.partition(";")[0] for line in lines] == [
            "a WSGI middleware collects the response body, or holds back the body's first bytes",
            "a WSGI middleware changes the response body",
            "a stream's response has the status 202 ACCEPTED, set by an after_request hook or a WSGI "
            "middleware",
        ]


def test_a_middleware_that_collects_the_body_gets_an_end_of_it(log: Path) -> None:
    with serving(log) as server:
        cursor = publish(server.url, "before")
        publish(server.url, "missed")
        with Stream(
            f"{server.url}/stream?channels=a", cursor=cursor, headers={"X-Middleware": "collecting"}
        ) as one:
            assert int(one.headers["content-length"]) > 0
            events = list(one)
        assert [event.data for event in events if event.type == "message"] == ["missed"]
        assert events[-1].json()["reason"] == "buffered"
        assert events[-1].json()["reconnect"] is True
        publish(server.url, "later")
        with Stream(
            f"{server.url}/stream?channels=a", cursor=one.cursor, headers={"X-Middleware": "collecting"}
        ) as two:
            assert two.next_of("message").data == "later"
        (line,) = errors(log)
        assert line.startswith("a WSGI middleware collects the response body")
        assert kinds(server.url) == {}


@pytest.mark.parametrize(("name", "length"), [("length", 512), ("zstd", None)])
def test_a_middleware_that_only_sets_a_header_gets_one_error_and_a_body_without_chunk_headers_in_it(
    name: str, length: int | None, log: Path
) -> None:
    with serving(log) as server:
        for _ in range(2):
            with Stream(f"{server.url}/stream?channels=a", headers={"X-Middleware": name}) as stream:
                publish(server.url, "live")
                assert stream.next_of("message").data == "live"
                if length is None:
                    assert stream.headers["content-encoding"] == name
                else:
                    with pytest.raises(EOFError):  # the connection ends with the body, so clients come back
                        stream._more()
        (line,) = errors(log)
        assert line.startswith("the head of a stream's response has Content-")
