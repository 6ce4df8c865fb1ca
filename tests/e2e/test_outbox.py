"""The outbox with real processes: the command `flask sse relay`, a relay in a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine

from flask_sse_push.outbox import Outbox
from tests.support.deadline import eventually
from tests.support.flask_process import FlaskProcess, run_flask
from tests.support.stream import Stream

from .conftest import Serve

APP = "tests.apps.orders"


@pytest.fixture
def outbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """The outbox of the app. Its tables are there."""
    url = request.getfixturevalue(f"{request.param}_url")
    monkeypatch.setenv("DATABASE_URL", url)
    outbox = Outbox(create_engine(url))
    outbox.create_all()
    yield outbox
    outbox.events.metadata.drop_all(outbox.engine)
    outbox.engine.dispose()


@pytest.fixture
def env(empty_valkey: str, outbox: Outbox) -> dict[str, str]:
    return {"SSE_PUSH_BROKER_URL": empty_valkey, "FLASK_APP": APP}


def orders(stream: Stream, count: int) -> list[int]:
    return [stream.next_of("paid").json()["order"] for _ in range(count)]


@pytest.mark.parametrize("outbox", ["postgresql"], indirect=True)
def test_a_relay_publishes_what_workers_commit(
    serve: Serve, http: httpx.Client, env: dict[str, str], outbox: Outbox
) -> None:
    server = serve(f"{APP}:app")
    first = FlaskProcess("sse", "relay", env=env)
    eventually(lambda: len(first.lines) == 2)  # it works
    second = FlaskProcess("sse", "relay", env=env)
    with Stream(f"{server.url}/stream?channels=orders") as stream:
        stream.next_of("sse.open")
        for order in range(5):
            http.post(f"{server.url}/orders/{order}").raise_for_status()
            http.post(f"{server.url}/orders/{order}?fail").raise_for_status()
        assert orders(stream, 5) == [0, 1, 2, 3, 4]
        eventually(lambda: "another relay" in "".join(second.lines))
        os.kill(first.pid, signal.SIGKILL)
        http.post(f"{server.url}/orders/5")
        assert orders(stream, 1) == [5]
        # The second relay has the lease now, and gives it back at its end.
        os.kill(second.pid, signal.SIGTERM)
        assert second.wait(60) == 0
        http.post(f"{server.url}/orders/6")
        run = run_flask("sse", "relay", "--once", env=env)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.startswith("relaying sse_push_outbox of ")
        assert run.stdout.endswith("\npublished 1 events of sse_push_outbox\n")
        assert orders(stream, 1) == [6]
    first.wait(60)
    assert [line.split()[0] for line in second.lines] == ["relaying", "another", "the"]
    assert outbox.backlog().waiting == 0


@pytest.mark.parametrize("outbox", ["mariadb"], indirect=True)
def test_one_of_the_workers_can_be_the_relay(
    serve: Serve, http: httpx.Client, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    monkeypatch.setenv("RELAY", "1")
    server = serve(f"{APP}:app", workers=2)
    with Stream(f"{server.url}/stream?channels=orders") as stream:
        stream.next_of("sse.open")
        for order in range(5):
            http.post(f"{server.url}/orders/{order}").raise_for_status()
        assert orders(stream, 5) == [0, 1, 2, 3, 4]
    assert "Traceback" not in log.read_text()
