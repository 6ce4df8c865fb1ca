"""Rights that end while the app's rules are asked, or hang. And clients without an address.

Each test proves that its moment came: the rule is inside its wait when the right ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from flask_sse_push import MessageAnnouncer
from tests.apps.club import KEY
from tests.e2e.conftest import Serve
from tests.support.deadline import eventually, stretched
from tests.support.measurements import Measurements
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

APP = "tests.apps.slow_rules:app"


class SlowRules:
    """The folder that makes the rules of `tests.apps.slow_rules` wait for some users."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def slow(self, user: str) -> None:
        (self._folder / f"slow-{user}").touch()

    def release(self) -> None:
        for path in self._folder.glob("slow-*"):
            path.unlink()

    def inside(self) -> int:
        """How many calls of the rule are inside their wait."""
        return len(list(self._folder.glob("inside-*")))


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowRules]:
    folder = tmp_path / "rules"
    folder.mkdir()
    monkeypatch.setenv("RULES", str(folder))
    made = SlowRules(folder)
    yield made
    made.release()


class Numbers(threading.Thread):
    """Publishes numbers to the channels `lab` and `hall` until the block ends."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.announcer = MessageAnnouncer.from_url(url)
        self.begun = 0  # the number that is being published, or was published last
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            self.begun += 1
            self.announcer.publish(self.begun, channel="lab")
            self.announcer.publish(self.begun, "hall", channel="hall")

    def __enter__(self) -> Numbers:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self.join(30)
        self.announcer.close()


def stream_of(server: Gunicorn, user: str, query: str) -> Stream:
    return Stream(f"{server.url}/stream?{query}", headers={"X-User": user, "Connection": "close"})


def post(server: Gunicorn, path: str, user: str, **body: Any) -> httpx.Response:
    with httpx.Client(timeout=60, trust_env=False, verify=False) as http:
        return http.post(server.url + path, json=body, headers={"X-User": user, "Connection": "close"})


def events_until(stream: Stream, enough: Callable[[], bool]) -> list[Any]:
    """Returns the events of a stream until it ends, or has changed its channels and `enough` returns True."""
    found = []
    for event in stream:
        found.append(event)
        if enough() and any(one.type == "sse.channels" for one in found):
            break
    return found


def test_rights_revoked_while_the_rule_is_asked_show_no_later_event(
    serve: Serve, rules: SlowRules, empty_valkey: str, measurements: Measurements
) -> None:
    """Clients join and connect, and have tickets. All rights end while the rules wait, on two workers."""
    server = serve(APP, workers=2, recheck=3600, public_channels="hall")
    joining, connecting = [f"j{n}" for n in range(8)], [f"c{n}" for n in range(6)]
    with Numbers(empty_valkey) as numbers, ThreadPoolExecutor(32) as pool, ExitStack() as held:
        streams = {user: held.enter_context(stream_of(server, user, "channels=hall")) for user in joining}
        opened = {user: json.loads(stream.next_of("sse.open").data) for user, stream in streams.items()}
        tickets = [post(server, "/ticket", "ticket").text for _ in range(4)]
        for user in (*joining, *connecting):
            rules.slow(user)
        answers = [
            pool.submit(
                post,
                server,
                f"/stream/{opened[user]['connection']}/channels",
                user,
                join=["lab"],
                secret=opened[user]["secret"],
            )
            for user in joining
        ]
        new = [pool.submit(stream_of, server, user, "channels=lab&last=1000") for user in connecting]
        eventually(lambda: rules.inside() == len(joining) + len(connecting), 30)
        for user in (*joining, *connecting, "ticket"):
            numbers.announcer.revoke(user, "lab" if user in joining else None)
        inside, last = rules.inside(), numbers.begun
        eventually(lambda: numbers.begun > last + 3)
        rules.release()
        assert {answer.result(60).status_code for answer in answers} == {202}
        released, late = numbers.begun, 0
        for stream in (*streams.values(), *[held.enter_context(one.result(60)) for one in new]):
            events = events_until(stream, lambda: numbers.begun > released + 50)
            late += sum(event.type == "message" and int(event.data) > last for event in events)
            if stream in streams.values():
                assert [event.type for event in events].count("sse.error") == 1
                assert events[-1].type != "sse.close"
            else:
                assert json.loads(events[-1].data)["reason"] == "revoked"
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        eventually(lambda: len(server.worker_pids()) == 2)
        statuses = [held.enter_context(Stream(f"{server.url}/stream?ticket={one}")).status for one in tickets]
    measurements.note(inside=inside, published_after=numbers.begun - last, late=late, tickets=statuses)
    assert inside == len(joining) + len(connecting)  # the rules were still waiting after the last revocation
    assert late == 0
    assert statuses == [401] * len(tickets)


def test_tokens_expire_in_time_while_the_rules_of_other_users_hang(
    serve: Serve, rules: SlowRules, measurements: Measurements
) -> None:
    server = serve(APP, recheck=0.5)
    with ExitStack() as held:
        for _ in range(15):
            held.enter_context(stream_of(server, "bob", "channels=lab")).next_of("sse.open")
        rules.slow("bob")
        eventually(lambda: rules.inside() >= 10, 30)
        expires = int(time.time()) + 3
        token = jwt.encode({"sub": "ada", "exp": expires}, KEY, "HS256")
        stream = Stream(
            f"{server.url}/stream?channels=user:ada,lab", headers={"Authorization": f"Bearer {token}"}
        )
        held.enter_context(stream).next_of("sse.open")
        assert json.loads(stream.next_of("sse.error").data)["code"] == 1103
        late, inside = time.time() - expires, rules.inside()
        assert json.loads(stream.next().data)["reason"] == "expired"
    measurements.note(inside=inside, late=late)
    assert inside >= 10
    assert -0.1 <= late < stretched(1)


@contextmanager
def through_unix_socket(path: Path) -> Iterator[tuple[int, socket.socket]]:
    """Opens a stream through a Unix socket, as a proxy does. Yields its status."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        yield int(client.recv(65536).split()[1]), client


def test_clients_without_an_address_share_one_limit_and_the_log_says_why(
    serve: Serve, rules: SlowRules, tmp_path: Path, log: Path
) -> None:
    path = tmp_path / "socket"
    serve(APP, "-b", f"unix:{path}", max_streams_per_address=3, public_channels="sse")
    with ExitStack() as held:
        statuses = [held.enter_context(through_unix_socket(path))[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert log.read_text().count("is not an IP address") == 1
    assert "ProxyFix" in log.read_text()


def test_a_login_as_another_user_ends_the_old_streams_of_this_browser_on_all_workers(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_valkey: str
) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"ada": ["club"], "bob": ["club"]}))
    monkeypatch.setenv("RULES", str(path))
    server = serve("tests.apps.club:app", workers=2)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with ExitStack() as held:
        here, elsewhere = [
            held.enter_context(
                httpx.Client(
                    base_url=server.url, timeout=60, trust_env=False, headers={"Connection": "close"}
                )
            )
            for _ in range(2)
        ]
        streams = []
        for browser in (here, here, here, here, elsewhere):
            if not browser.cookies:
                assert browser.post("/login/ada").status_code == 200
            cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            stream = Stream(f"{server.url}/stream?channels=club,user:ada", headers={"Cookie": cookies})
            held.enter_context(stream).next_of("sse.open")
            streams.append(stream)
        assert here.post("/login/bob").status_code == 200
        announcer.send_to_user("ada", "secret")
        for stream in streams[:-1]:
            *before, close = list(stream)
            assert "secret" not in [event.data for event in before]
            assert json.loads(close.data)["reason"] == "logout"
        assert streams[-1].next_of("message").data == "secret"
    announcer.close()
