"""Workers that stop: each stream ends with an `sse.close`, and clients can resume."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.processes import Gunicorn, has_ended
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")

Stop = Callable[[Gunicorn], None]

STOPS: dict[str, Stop] = {
    "SIGINT": lambda server: server.process.send_signal(signal.SIGINT),
    "SIGQUIT": lambda server: server.process.send_signal(signal.SIGQUIT),
    "SIGHUP": lambda server: server.process.send_signal(signal.SIGHUP),
    "SIGTERM to one worker": lambda server: os.kill(server.worker_pids()[0], signal.SIGTERM),
    "max_requests": lambda server: httpx.get(f"{server.url}/", trust_env=False, timeout=60).close(),
}


def read_to_the_end(streams: list[Stream]) -> list[str]:
    """Reads all streams to their end; returns the reasons of their `sse.close` events."""
    reasons: list[str] = []

    def read(stream: Stream) -> None:
        last = list(stream)[-1]
        assert last.type == "sse.close"
        assert last.retry == last.json()["retry"] > 0
        assert last.json()["reconnect"] is True
        reasons.append(last.json()["reason"])

    threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return reasons


@pytest.mark.parametrize("how", STOPS)
def test_a_stopping_worker_closes_200_streams_and_is_gone_in_two_seconds(
    serve: Serve, how: str, empty_valkey: str
) -> None:
    options = ["--max-requests", "201"] if how == "max_requests" else []
    server = serve("tests.apps.plain:app", *options)
    worker = server.worker_pids()[0]
    streams = [Stream(f"{server.url}/stream?channels=a") for _ in range(200)]
    assert [stream.next().type for stream in streams] == ["sse.open"] * 200
    began = time.monotonic()
    STOPS[how](server)
    reasons = read_to_the_end(streams)
    eventually(lambda: has_ended(worker), 10)
    took = time.monotonic() - began
    print(f"{how}: the worker was gone after {took:.2f} s")
    assert reasons == ["drain"] * 200
    assert all(stream.complete for stream in streams)
    assert took < stretched(2.5)
    text = server.log.read_text()
    assert "SIGKILL" not in text
    assert "Traceback" not in text
    assert "[ERROR]" not in text
    assert "graceful timeout" not in text


def test_a_stream_that_a_stopping_worker_accepts_gets_sse_close_with_reconnect(
    serve: Serve, empty_valkey: str
) -> None:
    """The worker must not refuse it: after any status but 200, a browser's EventSource never reconnects."""
    server = serve()
    cursor = MessageAnnouncer.from_url(empty_valkey).publish("seen", channel="a")

    def reached_the_stopping_worker() -> bool:
        """Opens a stream; returns whether the stopping worker got it, not the worker that replaces it."""
        (worker,) = eventually(server.worker_pids)
        with Stream(f"{server.url}/stream?channels=a") as first:
            first.next_of("sse.open")
            os.kill(worker, signal.SIGTERM)
            with Stream(f"{server.url}/stream?channels=a", cursor=cursor, timeout=5) as late:
                assert late.status == 200
                try:
                    close = late.next_of("sse.close")
                except TimeoutError:
                    return False
                assert close.json()["reconnect"] is True
                assert late.cursor is not None
                assert late.cursor >= cursor
                return True

    eventually(reached_the_stopping_worker)


def test_streams_end_spread_over_the_drain_window(serve: Serve) -> None:
    server = serve(drain=2.0)
    streams = [Stream(f"{server.url}/stream") for _ in range(40)]
    for stream in streams:
        stream.next_of("sse.open")
    server.process.send_signal(signal.SIGTERM)
    ends: list[float] = []
    retries: set[int] = set()

    def read(stream: Stream) -> None:
        closing = stream.next_of("sse.close")
        ends.append(closing.at)
        retries.add(closing.json()["retry"])

    threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 40
    assert max(ends) - min(ends) > 1.0
    assert len(retries) > 30
