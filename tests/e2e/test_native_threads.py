"""Publishing from native threads of gunicorn's gevent worker: it works, and harms no other request."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.support.clusters import cluster
from tests.support.deadline import eventually
from tests.support.processes import Gunicorn, gunicorn
from tests.support.sentinels import sentinel_service
from tests.support.stream import Stream

from .conftest import Serve

NATIVE = ["threadpool", "new thread"]
#: Calls that work in native threads.
WORKING = [
    *("publish", "publish_many", "notify", "broadcast", "announcer", "disconnect", "revoke", "join", "stop"),
    *("presence", "cursor"),
]
REFUSAL = (
    "RuntimeError: a native thread, such as one of gevent's threadpool, cannot start runs or the streams"
)


@pytest.fixture(params=["valkey", "memory"])
def server(request: pytest.FixtureRequest, serve: Serve) -> Gunicorn:
    more = {"broker_url": "memory://"} if request.param == "memory" else {}
    return serve("tests.apps.native_threads:app", presence_channels="room", **more)


def call(server: Gunicorn, http: httpx.Client, way: str, what: str, times: int = 1) -> list[Any]:
    response = http.get(f"{server.url}/call", params={"way": way, "what": what, "times": times})
    assert response.status_code == 200, response.text
    results: list[Any] = response.json()
    return results


def connections_of(broker: str) -> int:
    """Returns how many connections Redis has, without the connection that asks for this number."""
    with redis.Redis.from_url(broker) as client:
        return len(client.client_list()) - 1


def failed(results: list[Any]) -> list[str]:
    return [each for each in results if "Error" in str(each) or each == "the thread did not end"]


@pytest.mark.parametrize("first", [*NATIVE, "greenlet"])
def test_native_threads_publish_and_other_requests_go_on(
    server: Gunicorn, http: httpx.Client, first: str
) -> None:
    for way in [first, *NATIVE, "greenlet", *NATIVE, "greenlet"]:
        assert failed(call(server, http, way, "publish", 5)) == []
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        for way in [*NATIVE, "greenlet"]:
            call(server, http, way, "publish")
            assert stream.next().data == "x"


@pytest.mark.parametrize("way", NATIVE)
def test_every_call_works_in_a_native_thread_or_is_refused_with_a_reason(
    server: Gunicorn, http: httpx.Client, way: str
) -> None:
    for what in ("stats", "connections", "start"):
        (refused,) = call(server, http, way, what)
        assert refused.startswith(REFUSAL)
    assert failed([call(server, http, way, what) for what in WORKING]) == []
    with Stream(f"{server.url}/stream?channels=a,run:k") as stream:
        stream.next_of("sse.open")
        assert call(server, http, way, "stats")[0]["streams"] == 1
        assert len(call(server, http, way, "connections")[0]) == 1
        assert call(server, http, way, "start")[0].startswith(REFUSAL)
        assert call(server, http, "greenlet", "start") == [True]
        assert failed([call(server, http, way, what) for what in WORKING]) == []


def test_native_threads_and_greenlets_publish_at_the_same_time(server: Gunicorn, http: httpx.Client) -> None:
    results = http.get(f"{server.url}/at-once").json()
    assert failed(results) == []
    assert len(results) == len(set(results)) == 600


def test_short_lived_native_threads_leave_no_connections_and_no_files(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    with redis.Redis.from_url(empty_valkey) as client:
        client.client_kill_filter(_type="normal", skipme=True)  # connections that earlier tests have left
    server = serve("tests.apps.native_threads:app")
    call(server, http, "greenlet", "publish")
    call(server, http, "new thread", "publish")
    before, files = connections_of(empty_valkey), http.get(f"{server.url}/files").json()[0]
    assert before <= 4  # of the main thread and of the courier: one that publishes, and one from the pool
    assert failed(call(server, http, "new thread", "publish", 200)) == []
    assert connections_of(empty_valkey) == before
    assert http.get(f"{server.url}/files").json()[0] <= files + 2
    http.get(f"{server.url}/at-once?threads=100")
    assert connections_of(empty_valkey) <= 2 * 21


def test_totals_are_logged_though_a_native_thread_published_first(
    serve: Serve, http: httpx.Client, log: Path
) -> None:
    server = serve("tests.apps.native_threads:app", log_totals=1, log_json=1)
    call(server, http, "new thread", "publish", 3)
    call(server, http, "greenlet", "publish")
    eventually(lambda: "published 4" in log.read_text(), 10)


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_native_threads_publish_over_sentinel_and_cluster(
    kind: str, tmp_path: Path, http: httpx.Client, log: Path
) -> None:
    with ExitStack() as running:
        if kind == "sentinel":
            url = running.enter_context(sentinel_service(tmp_path)).url
        else:
            url = running.enter_context(cluster(tmp_path)).url
        env = {"SSE_PUSH_BROKER_URL": url, "SSE_PUSH_PRESENCE_CHANNELS": "room"}
        server = running.enter_context(gunicorn("tests.apps.native_threads:app", env=env, log=log))
        for way in ["new thread", "greenlet", "threadpool", "greenlet", "new thread"]:
            for what in ("publish", "broadcast", "announcer", "presence"):
                assert failed(call(server, http, way, what, 3)) == []


def test_native_threads_publish_after_something_has_ended_the_courier(
    serve: Serve, http: httpx.Client, log: Path
) -> None:
    server = serve("tests.apps.callbacks:app")
    with Stream(f"{server.url}/stream?channels=room:1") as stream:
        stream.next_of("sse.open")
        for _ in range(3):
            answer = http.post(f"{server.url}/end-courier").json()
            assert answer["cursor"]
            assert "ConnectionAbortedError" in answer["interrupted"]
            assert [stream.next().data for _ in range(2)] == ["from a native thread"] * 2
    assert log.read_text().count("the thread that serves native threads has ended by SystemExit()") == 3
