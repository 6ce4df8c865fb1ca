"""The files of deploy/ at work: gunicorn and nginx configured by them, TLS, HTTP/2."""

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

#: Nothing follows the opening that could push it out of a buffer within any test's deadline.
QUIET = {"SSE_PUSH_HEARTBEAT": "60"}
STREAM = "/stream?channels=news"


@pytest.fixture(scope="module")
def running(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests that do no harm to it."""
    folder = tmp_path_factory.mktemp("site")
    with site(folder, valkey_url, SSE_PUSH_PREFIX="deploy", **QUIET) as made:
        yield made


def announcer(broker: str) -> MessageAnnouncer:
    return MessageAnnouncer.from_url(broker, SSE_PUSH_PREFIX="deploy")


def events(response: httpx.Response) -> Iterator[Event]:
    """What comes on a stream, as it comes."""
    parser = Parser()
    for chunk in response.iter_raw():
        yield from parser.feed(chunk)


def test_events_come_at_once_and_are_resumed_over_tls_and_http2(running: Site, valkey_url: str) -> None:
    publisher = announcer(valkey_url)
    with running.client() as client:
        with client.stream("GET", STREAM) as response:
            assert (response.status_code, response.http_version) == (200, "HTTP/2")
            came = events(response)
            assert next(came).type == "sse.open"
            for n in range(5):
                cursor = publisher.publish(n, channel="news")
                event = next(came)
                assert (event.json(), event.id) == (n, cursor)
        publisher.publish("missed", channel="news")
        with client.stream("GET", STREAM, headers={"Last-Event-ID": cursor}) as response:
            came = events(response)
            assert next(came).json()["resumed"] is True
            assert next(came).data == "missed"
    publisher.close()


def test_streams_of_browsers_with_http_1_pass_too(running: Site) -> None:
    client = httpx.Client(verify=running.trust, trust_env=False, timeout=60)
    with client, client.stream("GET", running.url + STREAM) as response:
        assert response.http_version == "HTTP/1.1"
        assert next(events(response)).type == "sse.open"


def test_nginx_compresses_scripts_and_no_stream(running: Site) -> None:
    with running.client() as client:
        accepts = {"Accept-Encoding": "gzip"}
        script = client.get("/stream/client/push-client.js", headers=accepts)
        assert script.headers["content-encoding"] == "gzip"
        assert "PushClient" in script.text
        with client.stream("GET", STREAM, headers=accepts) as response:
            assert "content-encoding" not in response.headers
            assert next(events(response)).type == "sse.open"


def test_the_app_knows_its_visitors_by_what_nginx_says_of_them(running: Site) -> None:
    lies = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    with running.client() as client:
        known = client.get("/", headers=lies).json()
    assert known["scheme"] == "https"
    assert known["host"] == "localhost"
    assert known["address"] in ("127.0.0.1", "::1")


def test_plain_http_is_sent_to_https(running: Site) -> None:
    answer = httpx.get(f"http://localhost:{running.plain_port}{STREAM}", trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (301, "https://localhost" + STREAM)


def test_no_ticket_stands_in_the_log_of_nginx(running: Site) -> None:
    with running.client() as client:
        assert client.get("/stream/", params={"ticket": "confidential"}).status_code == 401
    eventually(lambda: " /stream/ 401 " in running.access_log.read_text(), 30)
    assert "confidential" not in running.access_log.read_text()


def ready(port: int) -> subprocess.CompletedProcess[str]:
    """The health check of the containers."""
    env = {**os.environ, "PORT": str(port), "OPERATOR_TOKEN": TOKEN}
    command = [sys.executable, "-I", str(DEPLOY / "ready.py")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


def test_the_check_says_whether_the_app_is_ready(running: Site) -> None:
    # It gives up after some seconds, which a busy machine may need.
    eventually(lambda: ready(running.server.port).returncode == 0, 30)
    answer = ready(free_port())
    assert (answer.returncode, answer.stderr[:9]) == (1, "not ready")


def test_health_and_metrics_are_for_those_with_the_token(running: Site) -> None:
    with running.client() as client:
        for path in ("/stream/health", "/stream/metrics"):
            assert client.get(path).status_code in (401, 403)
            assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_hundred_streams_share_one_connection_and_end_in_good_order(
    empty_valkey: str, tmp_path: Path
) -> None:
    with site(tmp_path, empty_valkey, SSE_PUSH_PREFIX="deploy", **QUIET) as made:
        with Multiplexed(made.url + STREAM, 100, made.trust) as streams:
            streams.until_each_has(1)
            publisher = announcer(empty_valkey)
            publisher.publish("for all", channel="news")
            publisher.close()
            streams.until_each_has(2)
            made.server.process.terminate()
            streams.until_all_have_ended()
        assert made.server.process.wait(60) == 0
        types = [[event.type for event in events] for events in streams.events.values()]
        assert types == [["sse.open", "message", "sse.close"]] * 100
