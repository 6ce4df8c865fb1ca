"""The admin page's data over several gunicorn workers."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx

from tests.support.deadline import eventually
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

from .conftest import Serve

ADMIN = {"X-User": "root"}


class Workers:
    """A server with three workers, as its admin sees it."""

    def __init__(self, server: Gunicorn, http: httpx.Client) -> None:
        self.server, self._http = server, http
        self._headers: dict[str, str] = {}

    def read(self, path: str, **parameters: Any) -> Any:
        answer = self._http.get(f"{self.server.url}/stream/admin/{path}", params=parameters, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def write(self, path: str, body: Any) -> int:
        self._headers = self._headers or {**ADMIN, **self.read("session")["write_headers"]}
        url = f"{self.server.url}/stream/admin/{path}"
        return self._http.post(url, json=body, headers=self._headers).status_code

    def open(self, user: str, channels: str = "news", **options: Any) -> Stream:
        url = f"{self.server.url}/stream?channels={channels}"
        return Stream(url, headers={"X-User": user}, **options)

    def why(self, user: str) -> Any:
        return self.read("why", user=user, channel="news")


def test_an_admin_sees_all_workers(serve: Serve, http: httpx.Client) -> None:
    workers = Workers(serve("tests.apps.administered:app", workers=3, max_message=200_000), http)
    streams = [workers.open(f"u{number}") for number in range(12)]
    for stream in streams:
        stream.next_of("sse.open")

    # pages of the list, over all workers
    eventually(lambda: workers.read("streams")["total"] == 12)
    users: list[str] = []
    place: str | None = ""
    while place is not None:
        page = workers.read("streams", limit=5, after=place)
        users += [each["user_id"] for each in page["streams"]]
        place = page["next"]
    assert users == [f"u{number}" for number in reversed(range(12))]
    where = {each["user_id"]: each for each in workers.read("streams")["streams"]}
    assert len({each["worker"] for each in where.values()}) > 1

    # live reports of all workers with streams
    live = workers.open("root", "sse.admin")
    wanted = {each["worker"] for each in where.values()}
    while wanted:
        wanted.discard(live.next_of("worker").json()["worker"])

    # a write reaches a stream of any worker
    for user in ("u3", "u4", "u5"):
        path = f"streams/{where[user]['connection']}/disconnect"
        assert workers.write(path, {"reconnect": False}) == 202
        assert streams[int(user[1])].next_of("sse.close").json()["reason"] == "disconnected"

    # a client that reads nothing
    slow = workers.open("slow", receive_buffer=4096)
    eventually(lambda: workers.read("streams", user="slow")["total"] == 1)
    for _ in range(60):
        assert workers.write("channel/events", {"channel": "news", "data": "x" * 190_000}) == 201
        if workers.read("streams", user="slow")["streams"][0]["buffered"]:
            break
    found = eventually(lambda: workers.why("slow")["reason"] == "slow_client" and workers.why("slow"))
    assert "has taken nothing" in found["findings"][0]["what"]
    slow.close()

    # a worker that hangs
    (worker,) = [
        each for each in workers.read("workers")["workers"] if each["worker"] == where["u0"]["worker"]
    ]
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        found = workers.why("u0")
        assert found["reason"] == "worker_deaf"
        assert found["missing"] == [worker["worker"]]
    finally:
        os.kill(worker["pid"], signal.SIGCONT)
