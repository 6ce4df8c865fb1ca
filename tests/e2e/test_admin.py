"""The admin page's data over several gunicorn workers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.support.deadline import eventually
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

from .conftest import Serve

#: Each request has a connection of its own: a stopped worker must not have the connection of the next one.
ADMIN = {"X-User": "root", "Connection": "close"}


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Suspends some workers."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Workers:
    """A server with three workers, as its admin sees it."""

    def __init__(self, server: Gunicorn, http: httpx.Client) -> None:
        self.server, self._http = server, http
        self._headers: dict[str, str] = {}

    def read(self, path: str, **parameters: Any) -> Any:
        answer = self._http.get(f"{self.server.url}/stream/admin/{path}", params=parameters, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def all(self, path: str, **parameters: Any) -> Any:
        """Returns an answer of all workers. On a busy machine a worker may answer too late."""

        def complete() -> Any:
            answer = self.read(path, **parameters)
            return answer if not answer["missing"] else None

        return eventually(complete)

    def write(self, path: str, body: Any) -> int:
        self._headers = self._headers or {**ADMIN, **self.read("session")["write_headers"]}
        url = f"{self.server.url}/stream/admin/{path}"
        return self._http.post(url, json=body, headers=self._headers).status_code

    def open(self, user: str, channels: str = "news", **options: Any) -> Stream:
        url = f"{self.server.url}/stream?channels={channels}"
        return Stream(url, headers={"X-User": user}, **options)

    def open_on_each(self, users: Sequence[str]) -> list[Stream]:
        """Opens a stream for each user, on one worker after another: the others are stopped meanwhile."""
        pids = self.server.worker_pids()
        streams = []
        for number, user in enumerate(users):
            others = [pid for pid in pids if pid != pids[number % len(pids)]]
            with stopped(others):
                streams.append(self.open(user))
                streams[-1].next_of("sse.open")
        return streams

    def why(self, user: str) -> Any:
        return self.read("why", user=user, channel="news")


def test_an_admin_sees_all_workers(serve: Serve, http: httpx.Client) -> None:
    workers = Workers(serve("tests.apps.administered:app", "--preload", workers=3, max_message=200_000), http)
    eventually(lambda: len(workers.server.worker_pids()) == 3)
    idle = workers.read("workers")
    assert (len(idle["workers"]), idle["idle"]) == (1, 2), "only the worker that answers has a reason to"
    streams = workers.open_on_each([f"u{number}" for number in range(6)])

    # pages of the list, over all workers
    eventually(lambda: workers.all("streams")["total"] == 6)
    assert workers.read("workers")["idle"] == 0
    users: list[str] = []
    place: str | None = ""
    while place is not None:
        page = workers.all("streams", limit=4, after=place)
        users += [each["user_id"] for each in page["streams"]]
        place = page["next"]
    assert users == [f"u{number}" for number in reversed(range(6))]
    where = {each["user_id"]: each for each in workers.all("streams")["streams"]}
    assert len({each["worker"] for each in where.values()}) == 3

    # live reports of all workers with streams
    live = workers.open("root", "sse.admin")
    wanted = {each["worker"] for each in where.values()}
    while wanted:
        wanted.discard(live.next_of("worker").json()["worker"])

    # a write reaches a stream of any worker
    for user in ("u3", "u4", "u5"):  # of three workers
        path = f"streams/{where[user]['connection']}/disconnect"
        assert workers.write(path, {"reconnect": False}) == 202
        assert streams[int(user[1])].next_of("sse.close").json()["reason"] == "disconnected"

    # a client that reads nothing
    slow = workers.open("slow", receive_buffer=4096)
    eventually(lambda: workers.all("streams", user="slow")["total"] == 1)
    for _ in range(60):
        assert workers.write("channel/events", {"channel": "news", "data": "x" * 190_000}) == 201
        if workers.all("streams", user="slow")["streams"][0]["buffered"]:
            break
    found = eventually(lambda: workers.why("slow")["reason"] == "slow_client" and workers.why("slow"))
    assert "has taken nothing" in found["findings"][0]["what"]
    slow.close()

    # a worker that hangs
    (worker,) = [
        each for each in workers.all("workers")["workers"] if each["worker"] == where["u0"]["worker"]
    ]
    with stopped([worker["pid"]]):
        found = workers.why("u0")
    assert found["reason"] == "worker_deaf"
    assert found["missing"] == [worker["worker"]]
