"""Streams on other servers: flask run, gthread, gevent with --preload; and beside a database pool."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.processes import ROOT, Gunicorn, accepts, free_port, gunicorn
from tests.support.stream import Stream

from .conftest import Serve


def check_live_and_resume(url: str, broker: str) -> None:
    """Checks that a client gets a live event, and after reconnecting the event it missed."""
    announcer = MessageAnnouncer.from_url(broker)
    with Stream(f"{url}/stream?channels=a,b") as stream:
        stream.next_of("sse.open")
        announcer.publish("live", channel="b")
        assert stream.next().data == "live"
    announcer.publish("missed", channel="a")
    with Stream(f"{url}/stream?channels=a,b", cursor=stream.cursor) as stream:
        assert stream.next().json()["resumed"] is True
        assert stream.next().data == "missed"
        announcer.publish("live again", channel="a")
        assert stream.next().data == "live again"
    announcer.close()


@contextlib.contextmanager
def flask_run(broker: str, log: Path, app: str = "tests.apps.plain:app", **settings: str) -> Iterator[str]:
    """Runs `flask run`, the development server, with threads; gives its address."""
    port = free_port()
    env = {**os.environ, "SSE_PUSH_BROKER_URL": broker, **settings}
    command = [sys.executable, "-m", "flask", "--app", app, "run", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        eventually(lambda: accepts(port), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def links(broker: str) -> list[str]:
    """Returns the addresses of the Redis connections that are subscribed to a channel."""
    with redis.Redis.from_url(broker) as client:
        return [one["addr"] for one in client.client_list() if int(one["sub"])]


def streams_on_two_workers(server: Gunicorn, broker: str) -> list[Stream]:
    """Opens streams until both workers have some: the kernel chooses which worker gets a connection."""
    streams: list[Stream] = []

    def open_more() -> bool:
        with ThreadPoolExecutor(20) as pool:
            more = list(pool.map(lambda n: Stream(f"{server.url}/stream?channels=a,b{n}"), range(20)))
        for stream in more:
            stream.next_of("sse.open")
        streams.extend(more)
        return len(links(broker)) == 2

    eventually(open_more, 10)
    return streams


def test_flask_run_serves_live_and_missed_events(empty_valkey: str, log: Path) -> None:
    with flask_run(empty_valkey, log) as url:
        check_live_and_resume(url, empty_valkey)
    assert "Traceback" not in log.read_text()


def test_gthread_serves_streams_and_drains_them(serve: Serve, empty_valkey: str) -> None:
    server = serve("tests.apps.plain:app", "--threads", "8", worker_class="gthread")
    check_live_and_resume(server.url, empty_valkey)
    with Stream(f"{server.url}/stream") as stream:
        stream.next_of("sse.open")
        server.process.terminate()
        assert stream.next_of("sse.close").json()["reason"] == "drain"
    assert server.process.wait(60) == 0


def test_gevent_with_preload_serves_streams_on_both_workers(serve: Serve, empty_valkey: str) -> None:
    server = serve("tests.apps.plain:app", "--preload", workers=2)
    check_live_and_resume(server.url, empty_valkey)
    streams = streams_on_two_workers(server, empty_valkey)
    MessageAnnouncer.from_url(empty_valkey).publish("to both workers", channel="a")
    assert {stream.next_of("message").data for stream in streams} == {"to both workers"}


def test_debians_redis_works_too(redis7_url: str, log: Path) -> None:
    with gunicorn("tests.apps.plain:app", env={"SSE_PUSH_BROKER_URL": redis7_url}, log=log) as server:
        check_live_and_resume(server.url, redis7_url)


def test_fifty_streams_leave_a_database_pool_of_two_to_the_pages(
    serve: Serve, http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE", str(tmp_path / "app.db"))
    server = serve("tests.apps.pooled:create_app()")
    streams = [Stream(f"{server.url}/stream?channels=a,user:ada") for _ in range(50)]
    for stream in streams:
        stream.next_of("sse.open")
    for _ in range(5):
        assert http.get(f"{server.url}/").text == "42"
    assert "QueuePool" not in server.log.read_text()


def test_each_worker_has_one_link_to_the_broker(serve: Serve, empty_valkey: str) -> None:
    server = serve(workers=2)
    streams = streams_on_two_workers(server, empty_valkey)
    assert len(streams) >= 20
    assert len(links(empty_valkey)) == 2
