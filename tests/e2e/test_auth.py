"""Rights over several workers: logouts, tickets, lost commands, limits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
import redis

from flask_sse_push import MessageAnnouncer
from tests.apps.club import KEY
from tests.support.deadline import eventually, stretched, usual_time
from tests.support.processes import Gunicorn
from tests.support.proxy import Proxy
from tests.support.stream import Received, Stream

from .conftest import Serve

APP = "tests.apps.club:app"


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says who may listen to which channel."""
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"ada": ["club", "lab"], "bob": ["club"]}))
    monkeypatch.setenv("RULES", str(path))
    return path


@contextlib.contextmanager
def signed_in(server: Gunicorn, name: str) -> Iterator[httpx.Client]:
    """An HTTP client with the session of a user."""
    with httpx.Client(
        base_url=server.url, timeout=60, trust_env=False, headers={"Connection": "close"}
    ) as http:
        assert http.post(f"/login/{name}").status_code == 200
        yield http


def stream_of(server: Gunicorn, http: httpx.Client, channels: str) -> Stream:
    """Opens a stream with the cookies of `http`."""
    cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
    return Stream(f"{server.url}/stream?channels={channels}", headers={"Cookie": cookies})


def streams_by_worker(http: httpx.Client, workers: int = 2) -> dict[int, int]:
    """Returns how many streams each worker has, by pid."""
    found: dict[int, int] = {}

    def all_seen() -> bool:
        stats = http.get("/stats").json()
        found[stats["pid"]] = stats["streams"]
        return len(found) == workers

    eventually(all_seen)
    return found


def streams_on_both_workers(
    server: Gunicorn, http: httpx.Client, least: int, held: ExitStack
) -> list[Stream]:
    """Opens at least `least` streams, some on each of two workers."""
    streams: list[Stream] = []

    def enough() -> bool:
        streams.append(held.enter_context(stream_of(server, http, "club,user:ada")))
        streams[-1].next_of("sse.open")
        return len(streams) >= least and min(streams_by_worker(http).values()) > 0

    eventually(enough)
    return streams


def rest(stream: Stream) -> list[Received]:
    """Returns all further events, until the stream ends."""
    return list(stream)


def test_a_logout_ends_all_streams_of_the_user_on_all_workers_within_a_second(
    serve: Serve, rules: Path, transport: str
) -> None:
    server = serve(APP, workers=2)
    with signed_in(server, "ada") as ada, signed_in(server, "bob") as bob, ExitStack() as held:
        other = held.enter_context(stream_of(server, bob, "club"))
        other.next_of("sse.open")
        streams = streams_on_both_workers(server, ada, 3, held)
        began = time.monotonic()
        assert ada.post("/logout").status_code == 200
        for stream in streams:
            *before, close = rest(stream)
            assert not [event for event in before if not event.type.startswith("sse.")]
            assert close.type == "sse.close"
            assert (close.json()["reason"], close.json()["reconnect"]) == ("logout", False)
            assert close.at - began < stretched(1)
            assert stream.complete
        # A native EventSource reconnects now. Without a session it is refused, and stops.
        with stream_of(server, ada, "club,user:ada") as again:
            assert again.status == 401
        eventually(lambda: sum(streams_by_worker(bob).values()) == 1)


def test_a_revoked_channel_is_taken_on_all_workers_and_none_of_its_later_events_come(
    serve: Serve, rules: Path, empty_valkey: str, transport: str
) -> None:
    server = serve(APP, workers=2)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with signed_in(server, "ada") as ada, ExitStack() as held:
        streams = streams_on_both_workers(server, ada, 3, held)
        announcer.publish("before", channel="club")
        announcer.revoke("ada", "club")
        announcer.publish("secret", channel="club")
        announcer.publish("for ada", channel="user:ada")
        for stream in streams:
            assert stream.next_of("message").data == "before"
            error = stream.next()
            assert (error.type, error.json()["details"]) == ("sse.error", {"channel": "club"})
            assert stream.next().data == "for ada"


def test_a_lost_command_makes_the_client_reconnect_within_the_interval(
    serve: Serve, rules: Path, empty_valkey: str
) -> None:
    with Proxy(urlsplit(empty_valkey).port or 0) as proxy, redis.Redis.from_url(empty_valkey) as direct:
        interval = 2.0
        server = serve(APP, broker_url=f"redis://127.0.0.1:{proxy.port}/0", recheck=interval, probe=0.3)
        with signed_in(server, "ada") as ada, stream_of(server, ada, "club") as stream:
            stream.next_of("sse.open")
            # The stream is live, and the worker receives commands.
            MessageAnnouncer.from_url(empty_valkey).publish("hello", channel="club")
            assert stream.next_of("message").data == "hello"
            proxy.replies.freeze()
            MessageAnnouncer.from_url(empty_valkey).revoke("ada")
            direct.delete("{sse:0}:list:!control")
            proxy.cut()
            proxy.replies.thaw()
            began = time.monotonic()
            close = stream.next_of("sse.close")
            assert (close.json()["reason"], close.json()["reconnect"]) == ("recheck", True)
            assert close.at - began < interval + stretched(1)


def test_a_changed_rule_takes_effect_within_the_interval(serve: Serve, rules: Path, transport: str) -> None:
    server = serve(APP, recheck=1)
    with signed_in(server, "ada") as ada, stream_of(server, ada, "club,lab") as stream:
        stream.next_of("sse.open")
        rules.write_text(json.dumps({"ada": ["lab"]}))
        began = time.monotonic()
        error = stream.next_of("sse.error")
        assert error.json()["details"] == {"channel": "club"}
        assert error.at - began < 1 + stretched(0.5)
        rules.write_text("{}")
        assert stream.next_of("sse.close").json()["reconnect"] is False


def test_a_stream_ends_when_its_token_expires(serve: Serve, rules: Path, transport: str) -> None:
    server = serve(APP)
    with Stream(f"{server.url}/stream") as stream:
        stream.next_of("sse.open")  # a worker's first stream may take longer than the token is valid
    expires = int(time.time()) + 5
    token = jwt.encode({"sub": "ada", "exp": expires}, KEY, "HS256")
    headers = {"Authorization": f"Bearer {token}"}
    with Stream(f"{server.url}/stream?channels=user:ada", headers=headers) as stream:
        stream.next_of("sse.open")
        assert stream.next_of("sse.error").json()["code"] == 1103
        assert stream.next().json()["reason"] == "expired"
        assert expires - 0.1 <= time.time() < expires + 3
    with Stream(f"{server.url}/stream?channels=user:ada", headers=headers) as stream:
        assert (stream.status, json.loads(stream.body())["code"]) == (401, 1103)


def test_a_ticket_works_once_over_all_workers_and_appears_in_no_log(
    serve: Serve, rules: Path, log: Path
) -> None:
    server = serve(APP, "--access-logfile", "-", workers=2)
    with signed_in(server, "ada") as ada:
        ticket = ada.post("/ticket").text
    url = f"{server.url}/stream?ticket={ticket}"
    with ExitStack() as held:
        statuses = [held.enter_context(Stream(url)).status for _ in range(8)]
    assert sorted(statuses) == [200] + [401] * 7
    eventually(lambda: log.read_text().count("GET /stream?ticket=*** HTTP/1.1") == 8)
    assert ticket not in log.read_text()


# -- limits --------------------------------------------------------------------------------------------------


def test_the_sixth_stream_of_a_user_is_refused_in_time_by_any_worker(
    serve: Serve, rules: Path, transport: str
) -> None:
    # A generator notices that its client has left when it sends the second heartbeat.
    server = serve(APP, workers=2, max_streams_per_user=5, heartbeat=0.5)
    with signed_in(server, "ada") as ada, signed_in(server, "bob") as bob, ExitStack() as held:
        streams = [held.enter_context(stream_of(server, ada, "club")) for _ in range(5)]
        for stream in streams:
            stream.next_of("sse.open")

        def try_a_sixth() -> None:
            with stream_of(server, ada, "club") as stream:
                assert (stream.status, json.loads(stream.body())["code"]) == (429, 1202)
                assert int(stream.headers["retry-after"]) >= 1

        assert usual_time(try_a_sixth) < stretched(0.1)
        with stream_of(server, bob, "club") as other:
            assert other.status == 200
        streams.pop().close()
        eventually(lambda: can_open(server, ada))


def can_open(server: Gunicorn, http: httpx.Client) -> bool:
    """Whether the user may open one more stream."""
    with stream_of(server, http, "club") as stream:
        return stream.status == 200


def test_the_streams_of_a_killed_worker_soon_stop_counting(serve: Serve, rules: Path) -> None:
    server = serve(APP, workers=2, max_streams_per_user=3)
    with signed_in(server, "ada") as ada, ExitStack() as held:
        for _ in range(3):
            held.enter_context(stream_of(server, ada, "club")).next_of("sse.open")
        assert not can_open(server, ada)
        counts = streams_by_worker(ada)
        os.kill(max(counts, key=lambda pid: counts[pid]), signal.SIGKILL)
        eventually(lambda: can_open(server, ada), 30, every=0.5)


def test_a_full_worker_still_answers_pages(serve: Serve, rules: Path, transport: str) -> None:
    server = serve(APP, max_streams=3, public_channels="sse")
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http, ExitStack() as held:
        for _ in range(3):
            held.enter_context(Stream(f"{server.url}/stream")).next_of("sse.open")

        def try_a_fourth() -> None:
            refused = http.get("/stream")
            assert (refused.status_code, refused.json()["code"]) == (503, 1203)
            assert int(refused.headers["Retry-After"]) >= 1
            assert http.get("/").status_code == 200

        assert usual_time(try_a_fourth, 15) < stretched(0.1)
