"""Runs gunicorn and nginx with the files of deploy/, with TLS and HTTP/2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.testing.events import Event, Parser
from tests.support.deadline import eventually
from tests.support.multiplexed import Multiplexed
from tests.support.processes import free_port
from tests.support.site import DEPLOY, TOKEN, Site, site

#: So no heartbeat can push `sse.open` out of a buffer before a test's time is over.
QUIET = {"SSE_PUSH_HEARTBEAT": "60"}
STREAM = "/stream?channels=news"


@pytest.fixture(scope="module")
def running(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests that leave it running."""
    folder = tmp_path_factory.mktemp("site")
    with site(folder, valkey_url, SSE_PUSH_PREFIX="deploy", **QUIET) as started:
        yield started


def announcer(broker: str) -> MessageAnnouncer:
    return MessageAnnouncer.from_url(broker, SSE_PUSH_PREFIX="deploy")


def events(response: httpx.Response) -> Iterator[Event]:
    """The events of a stream, as they come."""
    parser = Parser()
    for chunk in response.iter_raw():
        yield from parser.feed(chunk)


def test_events_come_at_once_and_streams_resume_over_tls_and_http2(running: Site, valkey_url: str) -> None:
    publisher = announcer(valkey_url)
    with running.client() as client:
        with client.stream("GET", STREAM) as response:
            assert (response.status_code, response.http_version) == (200, "HTTP/2")
            arriving = events(response)
            assert next(arriving).type == "sse.open"
            for n in range(5):
                cursor = publisher.publish(n, channel="news")
                event = next(arriving)
                assert (event.json(), event.id) == (n, cursor)
        publisher.publish("missed", channel="news")
        with client.stream("GET", STREAM, headers={"Last-Event-ID": cursor}) as response:
            arriving = events(response)
            assert next(arriving).json()["resumed"] is True
            assert next(arriving).data == "missed"
    publisher.close()


def test_streams_work_over_http_1_too(running: Site) -> None:
    client = httpx.Client(verify=running.trust, trust_env=False, timeout=60)
    with client, client.stream("GET", running.url + STREAM) as response:
        assert response.http_version == "HTTP/1.1"
        assert next(events(response)).type == "sse.open"


def test_nginx_compresses_scripts_but_not_streams(running: Site) -> None:
    with running.client() as client:
        accepts = {"Accept-Encoding": "gzip"}
        script = client.get("/stream/client/push-client.js", headers=accepts)
        assert script.headers["content-encoding"] == "gzip"
        assert "PushClient" in script.text
        with client.stream("GET", STREAM, headers=accepts) as response:
            assert "content-encoding" not in response.headers
            assert next(events(response)).type == "sse.open"


def test_the_app_takes_scheme_host_and_address_from_nginx_not_from_clients(running: Site) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
    }
    with running.client() as client:
        known = client.get("/", headers=forged).json()
    assert known["scheme"] == "https"
    assert known["host"] == "localhost"
    assert known["address"] in ("127.0.0.1", "::1")


def test_plain_http_redirects_to_https(running: Site) -> None:
    answer = httpx.get(f"http://localhost:{running.plain_port}{STREAM}", trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (301, "https://localhost" + STREAM)


def test_tickets_do_not_appear_in_the_log_of_nginx(running: Site) -> None:
    with running.client() as client:
        assert client.get("/stream/", params={"ticket": "confidential"}).status_code == 401
    eventually(lambda: " /stream/ 401 " in running.access_log.read_text(), 30)
    assert "confidential" not in running.access_log.read_text()


def run_ready_check(port: int) -> subprocess.CompletedProcess[str]:
    """Runs the health check of the containers."""
    env = {**os.environ, "PORT": str(port), "OPERATOR_TOKEN": TOKEN}
    command = [sys.executable, "-I", str(DEPLOY / "ready.py")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


def test_the_health_check_says_whether_the_app_is_ready(running: Site) -> None:
    # The check gives up after some seconds. A busy machine may need longer, so the test repeats it.
    eventually(lambda: run_ready_check(running.server.port).returncode == 0, 30)
    answer = run_ready_check(free_port())
    assert (answer.returncode, answer.stderr[:9]) == (1, "not ready")


def test_health_and_metrics_need_the_token(running: Site) -> None:
    with running.client() as client:
        for path in ("/stream/health", "/stream/metrics"):
            assert client.get(path).status_code in (401, 403)
            assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_hundred_streams_share_one_connection_and_end_with_a_close(
    empty_valkey: str, tmp_path: Path
) -> None:
    with site(tmp_path, empty_valkey, SSE_PUSH_PREFIX="deploy", **QUIET) as own_site:
        with Multiplexed(own_site.url + STREAM, 100, own_site.trust) as streams:
            streams.until_each_has(1)
            publisher = announcer(empty_valkey)
            publisher.publish("for all", channel="news")
            publisher.close()
            streams.until_each_has(2)
            own_site.server.process.terminate()
            streams.until_all_have_ended()
        assert own_site.server.process.wait(60) == 0
        types = [[event.type for event in events] for events in streams.events.values()]
        assert types == [["sse.open", "message", "sse.close"]] * 100
