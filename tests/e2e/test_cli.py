"""`flask sse publish`, `channels`, `history` and `stats`, run as in a terminal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.embedded.server import EmbeddedServer
from tests.support.deadline import eventually
from tests.support.flask_process import run_flask
from tests.support.processes import ROOT, Gunicorn, free_port
from tests.support.stream import Received, Stream

from .conftest import Serve


def flask(*arguments: str, broker: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `flask --app tests.apps.plain …` in a folder without gunicorn.conf.py."""
    env = {"SSE_PUSH_BROKER_URL": broker, **env}
    return run_flask("--app", "tests.apps.plain", *arguments, env=env, folder=ROOT / "docs")


def history_of(server: Gunicorn, channel: str) -> list[Received]:
    """The events of a channel's history. Publishes one more event, on another channel, to mark the end."""
    httpx.post(f"{server.url}/publish", json={"data": "end", "channel": "end"}, trust_env=False, timeout=60)
    with Stream(f"{server.url}/stream?channels={channel},end&last_event_id=earliest") as stream:
        events: list[Received] = []
        for event in stream:
            if event.data == "end":
                return events
            if not event.type.startswith("sse."):
                events.append(event)
    raise AssertionError("the event that marks the end did not come")


def test_published_events_arrive_once_with_type_and_cursor(serve: Serve, empty_valkey: str) -> None:
    server = serve()
    calls = [
        ['{"hello": [1, "ü"]}'],
        ["plain text"],
        ["two\nlines", "--type", "note"],
        ["5", "--id", "deploy-7"],
        ["not again", "--id", "deploy-7"],
    ]
    runs = [flask("sse", "publish", "news", *arguments, broker=empty_valkey) for arguments in calls]
    assert [run.returncode for run in runs] == [0] * 5
    printed = [run.stdout.strip() for run in runs]
    events = history_of(server, "news")
    assert events[0].json() == {"hello": [1, "ü"]}
    assert [(event.type, event.data) for event in events[1:]] == [
        ("message", "plain text"),
        ("note", "two\nlines"),
        ("message", "5\t"),
    ]
    assert [event.id for event in events] == printed[:4]
    assert printed[4] == printed[3]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["bad channel", "x"], "channel: has the forbidden character U+0020 at 3"),
        (["news", "x", "--type", "sse.open"], "type: 'sse.open' begins with 'sse.'"),
        (["news", "x", "--id", "no spaces"], "id: has the forbidden character U+0020"),
        (["news", '{"prices": [1, NaN]}'], 'data["prices"][1] is NaN, which JSON does not have'),
        (["news", "x" * 10_001], "SSE_PUSH_MAX_MESSAGE allows 10000"),
    ],
)
def test_the_error_says_what_is_wrong_with_an_event(
    arguments: list[str], complaint: str, empty_valkey: str
) -> None:
    result = flask("sse", "publish", *arguments, broker=empty_valkey)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    with redis.Redis.from_url(empty_valkey) as client:
        assert client.keys("*") == []


def test_the_error_about_a_memory_broker_says_what_to_set() -> None:
    result = flask("sse", "publish", "news", "x", broker="memory://")
    assert result.returncode == 1
    assert "memory://, which no other process can reach" in result.stderr
    assert "set SSE_PUSH_BROKER_URL=redis://localhost:6379/0" in result.stderr


def test_the_error_names_a_broker_that_does_not_answer() -> None:
    port = free_port()
    result = flask(
        "sse", "publish", "news", "x", broker=f"redis://127.0.0.1:{port}/0", SSE_PUSH_PUBLISH_TIMEOUT="0.5"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert str(port) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project with an app and a subfolder. Its embedded server is stopped after the test."""
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom flask_sse_push import sse\napp = Flask(__name__)\nsse.init_app(app)\n"
    )
    (tmp_path / "scripts").mkdir()
    yield tmp_path
    EmbeddedServer(root=str(tmp_path)).stop()


def flask_in(folder: Path, *arguments: str, app: str = "app") -> str:
    """Runs `flask --app app …` in a folder of a project. Returns what the command prints."""
    env = {"PYTHONPATH": str(ROOT), "SSE_PUSH_BROKER_URL": "embedded://"}
    result = run_flask("--app", app, *arguments, env=env, folder=folder)
    assert result.stderr == ""
    return result.stdout


def test_commands_share_the_embedded_server_of_their_project(project: Path) -> None:
    flask_in(project, "sse", "publish", "news", "x")  # nothing else runs yet
    flask_in(project / "scripts", "sse", "publish", "news", "y", app="../app.py")
    listed = flask_in(project, "sse", "history", "news").splitlines()
    assert [line.rpartition("  ")[2] for line in listed] == ["x", "y"]


def test_embedded_status_and_stop(project: Path) -> None:
    folder = project / ".flask-sse-push"
    assert (
        flask_in(project, "sse", "embedded", "status") == f"No embedded server runs. Its folder is {folder}\n"
    )
    flask_in(project, "sse", "publish", "news", "x")
    shown = dict(line.split(None, 1) for line in flask_in(project, "sse", "embedded", "status").splitlines())
    assert list(shown) == ["address", "folder", "pid", "memory", "used"]
    assert shown["folder"] == str(folder)
    assert shown["used"].endswith("ago; ends 300 s after its last use")
    assert flask_in(project, "sse", "embedded", "stop") == f"Stopped. Its folder is {folder}\n"
    assert (
        flask_in(project, "sse", "embedded", "stop") == f"No embedded server runs. Its folder is {folder}\n"
    )
    assert flask_in(project, "sse", "channels").startswith("news  newest ")  # its events are still there


# -- channels, history and stats ----------------------------------------------------------------------


def test_channels_and_their_history_are_listed(empty_valkey: str) -> None:
    announcer = MessageAnnouncer.from_url(empty_valkey)
    for number in range(3):
        announcer.publish(f"{number}\x1b", channel="old")
    published = announcer.publish("two\nlines", "note", channel="news")
    announcer.close()
    listed = flask("sse", "channels", "--json", broker=empty_valkey)
    assert [json.loads(line)["channel"] for line in listed.stdout.splitlines()] == ["news", "old"]
    assert flask("sse", "channels", broker=empty_valkey).stdout.startswith("news  newest ")

    [event] = flask("sse", "history", "news", "--json", broker=empty_valkey).stdout.splitlines()
    found = json.loads(event)
    assert (found["id"], found["type"], found["data"]) == (published, "note", "two\nlines")
    shown = flask("sse", "history", "old", "--last", "2", broker=empty_valkey).stdout.splitlines()
    assert [line.split("  ")[-2:] for line in shown] == [["message", "1\\x1b"], ["message", "2\\x1b"]]


@pytest.mark.parametrize("at", [0, 1, -1])
def test_a_damaged_item_hides_no_other_event_of_the_history(empty_valkey: str, at: int) -> None:
    announcer = MessageAnnouncer.from_url(empty_valkey)
    for number in range(4):
        announcer.publish(number, channel="news")
    announcer.close()
    with redis.Redis.from_url(empty_valkey) as client:
        client.lset("{sse:0}:list:news", at, "junk \x1b]0;x")
    shown = flask("sse", "history", "news", broker=empty_valkey)
    assert shown.returncode == 0
    numbers = ["0", "1", "2", "3"]
    del numbers[at]
    assert [line.split("  ")[-1] for line in shown.stdout.splitlines()] == numbers
    assert f"item {at % 4 + 1} of 4" in shown.stderr
    assert "\x1b" not in shown.stderr


def test_stats_prints_the_totals_of_all_workers(serve: Serve, empty_valkey: str) -> None:
    server = serve()
    with Stream(f"{server.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")

        def totals() -> dict[str, int]:
            lines = flask("sse", "stats", broker=empty_valkey).stdout.splitlines()
            return json.loads(lines[-1])  # type: ignore[no-any-return]

        eventually(lambda: totals() == {"streams": 1, "workers": 1}, every=0.2)


@pytest.mark.parametrize("arguments", [["channels"], ["history", "a"], ["stats"]])
def test_channels_history_and_stats_need_a_broker_that_is_shared(arguments: list[str]) -> None:
    unreachable = flask("sse", *arguments, broker=f"redis://127.0.0.1:{free_port()}")
    assert (unreachable.returncode, unreachable.stdout) == (1, "")
    assert unreachable.stderr.startswith("Error: ")
    memory = flask("sse", *arguments, broker="memory://")
    assert memory.returncode == 1
    assert "no other process can reach" in memory.stderr
