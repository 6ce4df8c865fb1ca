"""Two machines that share one broker. Each is a gunicorn master in its own network namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.support.deadline import eventually
from tests.support.machines import Machine, MachineServer, machines
from tests.support.servers import Server
from tests.support.stream import Stream

#: The users with a stream on the first machine and on the second. The user "both" has a stream on each.
USERS = (("ann", "both"), ("bob", "cy", "both"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Machine, MachineServer]]]:
    """Two machines that run `tests.apps.people`, with one Valkey."""
    folder = tmp_path_factory.mktemp("machines")
    with ExitStack() as running:
        both = running.enter_context(machines(2))
        server = Server(folder / "valkey", "--bind", "0.0.0.0", "--protected-mode", "no")
        running.callback(server.close)
        server.start()
        servers = []
        for machine in both:
            env = {"SSE_PUSH_BROKER_URL": f"redis://{machine.host}:{server.port}/0", "SSE_PUSH_RECHECK": "1"}
            env |= {"SSE_PUSH_PRESENCE_GRACE": "0.5", "SSE_PUSH_PROBE": "0.5"}
            log = folder / f"{machine.name}.log"
            servers.append(running.enter_context(machine.gunicorn("tests.apps.people:app", log, env)))
        yield list(zip(both, servers, strict=True))


@pytest.fixture
def crowd(pair: list[tuple[Machine, MachineServer]]) -> Iterator[list[Stream]]:
    """Opens the streams of `USERS` on both machines."""
    with ExitStack() as opened:
        streams = []
        for (_, server), users in zip(pair, USERS, strict=True):
            for user in users:
                url = f"{server.url}/stream?channels=room:1&user={user}"
                streams.append(opened.enter_context(Stream(url, timeout=60)))
                streams[-1].next_of("sse.open")
        yield streams


def ask(server: MachineServer, path: str, method: str = "GET") -> Any:
    answer = httpx.request(method, f"{server.url}{path}", timeout=30, trust_env=False)
    answer.raise_for_status()
    return answer.json() if method == "GET" else answer.text


def test_streams_of_both_machines_get_all_events_in_the_same_order(
    pair: list[tuple[Machine, MachineServer]], crowd: list[Stream]
) -> None:
    texts = [f"{number}-{at}" for number in range(25) for at in range(2)]
    cursors = [ask(pair[int(text[-1])][1], f"/publish/{text}", "POST") for text in texts]
    for stream in crowd:
        events = stream.take(len(texts))
        assert [event.data for event in events] == texts
        assert [event.id for event in events] == cursors


def test_a_stream_resumes_on_the_other_machine(pair: list[tuple[Machine, MachineServer]]) -> None:
    (_, here), (_, there) = pair
    cursor = ask(here, "/publish/before", "POST")
    ask(here, "/publish/missed", "POST")
    with Stream(f"{there.url}/stream?channels=room:1", cursor=cursor, timeout=60) as stream:
        assert stream.next_of("sse.open").json()["resumed"] is True
        ask(here, "/publish/live", "POST")
        assert [event.data for event in stream.take(2)] == ["missed", "live"]


def test_each_machine_reports_connections_stats_and_presence_of_both(
    pair: list[tuple[Machine, MachineServer]], crowd: list[Stream]
) -> None:
    all_users = sorted(user for users in USERS for user in users)
    for _, server in pair:

        def agrees(server: MachineServer = server) -> bool:
            seen = ask(server, "/people")
            stats = ask(server, "/stream/stats?user=operator")
            return (
                sorted(connection["user_id"] for connection in seen["connections"]) == all_users
                and seen["presence"]
                == {"channel": "room:1", "count": 4, "users": ["ann", "bob", "both", "cy"]}
                and stats["streams"] == len(crowd)
                and len(stats["workers"]) == 2
            )

        eventually(agrees, 60, every=0.2)


def test_a_command_on_one_machine_closes_streams_on_both(
    pair: list[tuple[Machine, MachineServer]], crowd: list[Stream]
) -> None:
    ask(pair[0][1], "/leave?user=both", "POST")
    for index in (1, 4):
        assert crowd[index].next_of("sse.close").json()["reconnect"] is False
    eventually(lambda: ask(pair[1][1], "/people")["presence"]["users"] == ["ann", "bob", "cy"], 60, every=0.2)


def test_users_of_an_unplugged_machine_leave_and_the_other_machine_still_works(
    pair: list[tuple[Machine, MachineServer]], crowd: list[Stream]
) -> None:
    (_, here), (machine, _) = pair
    eventually(lambda: ask(here, "/people")["presence"]["count"] == 4, 60, every=0.2)
    machine.unplug()  # this is the last test, so the machine stays unplugged
    eventually(lambda: ask(here, "/people")["presence"]["users"] == ["ann", "both"], 60, every=0.2)
    assert sorted(connection["user_id"] for connection in ask(here, "/people")["connections"]) == [
        "ann",
        "both",
    ]
    ask(here, "/publish/still", "POST")
    for stream in crowd[:2]:
        assert stream.take(1)[0].data == "still"
