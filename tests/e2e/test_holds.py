"""Requests that something interrupts at each step of their way: nothing that they took stays taken."""

from __future__ import annotations

import itertools
import socket
from typing import Any

import httpx
import redis

from tests.support.deadline import eventually
from tests.support.processes import Gunicorn
from tests.support.stream import Stream

from .conftest import Serve

ERRORS = ("Timeout", "GreenletExit", "ValueError")
#: How many streams a user may have.
LIMIT = 2
SETTINGS: dict[str, Any] = {
    **{"heartbeat": 0.2, "recheck": 60, "presence_channels": "room:*", "presence_grace": 0, "linger": 0},
    **{"max_streams_per_user": LIMIT, "drain": 0, "probe": 1, "public_channels": "room:*,run:*"},
}


def interrupt(server: Gunicorn, method: str, path: str, where: int | str) -> None:
    """Sends a request that is interrupted, and waits for the end.

    A stream that opens all the same is closed by the client.

    :param where: the number of the switch, or the name of a function: its first switch is meant.
    """
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        error = ERRORS[where % len(ERRORS) if isinstance(where, int) else 0]
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Content-Length: 0", "Connection: close"]
        client.sendall("\r\n".join((*lines, f"X-Interrupt: {where} {error}", "", "")).encode())
        received = b""
        while b"event: sse.heartbeat" not in received and (data := client.recv(65536)):
            received += data
        assert b" 429 " not in received[:20], received


def held(server: Gunicorn, http: httpx.Client) -> dict[str, Any]:
    """What streams and runs hold now, without the parts that hold nothing."""
    found: dict[str, Any] = http.get(f"{server.url}/held").json()
    return {name: value for name, value in found.items() if value}


def settled(server: Gunicorn, http: httpx.Client) -> dict[str, Any] | None:
    """What is held, when all changes are reported to the broker."""
    found = held(server, http)
    return {"": "", **found} if "unreported" not in found else None


def interrupt_in(server: Gunicorn, http: httpx.Client, method: str, path: str, where: str) -> list[str]:
    """Interrupts a worker's first request in a function. Returns the functions that the request was in.

    Tries again if the function had nothing to wait for: on a busy machine, Redis may have answered already.
    """
    for _ in range(50):
        http.post(f"{server.url}/restart")
        interrupt(server, method, path, where)
        eventually(lambda: settled(server, http) == {"": ""})
        for functions in http.get(f"{server.url}/interrupted").json():
            return list(functions)
    raise AssertionError(f"{where} never waits")


def walk(server: Gunicorn, http: httpx.Client, method: str, path: str, *, fresh: bool = False) -> list[str]:
    """Interrupts a request at each of its switches, one after another, until one request has no more.

    :param path: `{number}` stands for the number of the switch.
    :param fresh: whether each request is the first that the worker serves, and starts its threads.
    :returns: the names of all functions in which a request was interrupted.
    """
    functions: set[str] = set()
    before = eventually(lambda: settled(server, http))
    missed = 0  # how many requests in a row had no more switches; how often some of them wait varies
    for number in itertools.count(1):
        if fresh:
            http.post(f"{server.url}/restart")
        interrupt(server, method, path.format(number=number), number)
        try:
            eventually(lambda: settled(server, http) == before)
        except AssertionError:
            raise AssertionError(f"step {number}: {held(server, http)}, not {before}; {functions}") from None
        reached = http.get(f"{server.url}/interrupted").json()
        functions.update(*reached)
        missed = 0 if reached else missed + 1
        if missed == 3:
            break
    assert number > 3
    print(f"{path} was interrupted at {number - 3} steps")
    return sorted(functions)


def test_a_stream_gives_everything_back_wherever_it_is_interrupted(
    serve: Serve, http: httpx.Client, transport: str
) -> None:
    server = serve("tests.apps.callbacks:app", **SETTINGS)
    for fresh in (True, False):
        functions = walk(server, http, "GET", "/stream?channels=room:1,private&user=ann", fresh=fresh)
        assert {"reserve", "totals", "follow", "body"} <= set(functions), functions
    assert "start_all" not in functions, "the threads already run"
    streams = [Stream(f"{server.url}/stream?channels=room:1&user=ann") for _ in range(LIMIT)]
    for stream in streams:
        stream.next_of("sse.open")


def test_a_run_gives_everything_back_and_ends_wherever_its_start_is_interrupted(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    server = serve("tests.apps.callbacks:app", **SETTINGS)
    for fresh in (True, False):
        walk(server, http, "POST", f"/start/{fresh}-{{number}}?numbers=5", fresh=fresh)
    for where in ("totals", "hear_commands", "publish", "_start_thread"):
        assert where in interrupt_in(server, http, "POST", f"/start/at-{where}?numbers=5", where)
        assert http.post(f"{server.url}/start/at-{where}?numbers=5").json() == {"started": True}
        eventually(lambda: settled(server, http) == {"": ""})
    with redis.Redis.from_url(empty_valkey) as client:
        begun = [types_of(client, name) for name in client.scan_iter("*:list:run:*")]
    assert any(types[:2] == ["run.begin", "run.end"] for types in begun), begun
    for types in begun:
        assert (types.count("run.begin"), types[-1:]) == (types.count("run.end"), ["run.end"]), types


def test_channels_that_a_stream_joins_are_given_back_wherever_the_join_is_interrupted(
    serve: Serve, http: httpx.Client
) -> None:
    server = serve("tests.apps.callbacks:app", **SETTINGS)
    with Stream(f"{server.url}/stream?channels=room:1&user=ann") as stream:
        connection = stream.next_of("sse.open").json()["connection"]
        walk(server, http, "POST", f"/join/{connection}/room:1")
        for number in (1, 2, 3):
            interrupt(server, "POST", f"/join/{connection}/room:{number}", number)
    eventually(lambda: held(server, http) == {})


def types_of(client: redis.Redis, key: bytes) -> list[str]:
    """The types of the events in a list of the broker."""
    entries: list[Any] = client.lrange(key, 0, -1)
    lines = [line for entry in entries for line in entry.decode().split("\n")]
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
