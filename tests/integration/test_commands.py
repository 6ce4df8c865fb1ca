"""What the commands say about mistakes and empty answers. The commands run in the process of the test."""

from __future__ import annotations

import json
import logging
import re
import time

import pytest
from click.testing import Result
from flask import Flask

from flask_sse_push import MessageAnnouncer, SSEBlueprint
from flask_sse_push.protocol.cursor import parse


class Commands:
    """Runs `flask sse …` for an app on an empty Valkey."""

    def __init__(self, broker: str) -> None:
        self.announcer = MessageAnnouncer.from_url(broker)
        self._app = Flask("commands")
        self._app.config["SSE_PUSH_BROKER_URL"] = broker
        self._app.register_blueprint(SSEBlueprint("sse", __name__), url_prefix="/stream")

    def run(self, *arguments: str) -> Result:
        return self._app.test_cli_runner().invoke(args=["sse", *arguments])


@pytest.fixture
def commands(empty_valkey: str) -> Commands:
    return Commands(empty_valkey)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["history", "nothing"], 1, "keeps no events of the channel nothing"),
        (["history", "news", "--last", "-3"], 2, "-3 is not in the range"),
        (["history", "news", "--last", "0"], 2, "0 is not in the range"),
        (["history", "news", "--timeout", "-1"], 2, "is not in the range"),
        (["tail", "--channel", "news", "--last", "-3"], 2, "-3 is not in the range"),
        (["channels"], 0, "No channel has events"),
        (["stats"], 0, "No worker has streams or runs"),
        (["tail", "https://127.0.0.1:1/stream", "--cacert", "no-such-file"], 2, "no-such-file"),
        (["doctor", "--url", "https://127.0.0.1:1/stream", "--cacert", __file__], 2, "no PEM certificate"),
        (["doctor", "--url", "https://127.0.0.1:1/stream", "--header", "nothing"], 2, "is not 'Name: value'"),
    ],
)
def test_a_command_that_has_nothing_to_print_says_why(
    commands: Commands, arguments: list[str], code: int, says: str
) -> None:
    result = commands.run(*arguments)
    assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (
        code,
        True,
    )
    assert says in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "data", ['{"a": 1', "{'a': 1}", "{a: 1}", "[1, 2", '["a",]', '"half', '{"a": 1}}', "{", '{"a": "\t"}']
)
def test_text_that_looks_like_broken_json_is_sent_with_a_warning(commands: Commands, data: str) -> None:
    result = commands.run("publish", "news", data)
    assert result.exit_code == 0
    assert re.match("DATA was sent as text, because it is not JSON: .+", result.stderr)
    shown = commands.run("history", "news", "--json")
    assert json.loads(shown.stdout)["data"] == data


@pytest.mark.parametrize(
    "data", ['{"a": 1}', "[INFO] done", "{name} is here", "it's {", "5", "", "[1]", '""']
)
def test_json_and_plain_text_are_sent_without_a_warning(commands: Commands, data: str) -> None:
    result = commands.run("publish", "news", data)
    assert (result.exit_code, result.stderr) == (0, "")


def test_tail_of_a_channel_shows_when_events_were_published(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        cursor = commands.announcer.publish("old", channel="news")
        tail = commands.run("tail", "--channel", "news", "--last", "1", "--count", "1")
        as_json = commands.run("tail", "--channel", "news", "--last", "1", "--count", "1", "--json")
        kept = commands.run("history", "news")
    finally:
        monkeypatch.undo()
        time.tzset()
    event = parse(cursor)
    assert event is not None
    published = time.gmtime(event.id / 1e6 + 19_800)
    at = time.strftime("%Y-%m-%d %H:%M:%S +0530", published)
    assert tail.stdout == f"{at}  news  message  old\n"
    assert json.loads(as_json.stdout)["published"] == at
    assert at in kept.stdout


def test_tail_of_a_channel_leaves_the_logs_of_its_process_as_they_were(commands: Commands) -> None:
    commands.announcer.publish("old", channel="news")
    commands.run("tail", "--channel", "news", "--last", "1", "--count", "1")
    assert logging.getLogger("flask_sse_push.history.link").level == logging.NOTSET


@pytest.mark.parametrize("command", ["channels", "doctor", "history", "publish", "relay", "stats", "tail"])
def test_the_help_of_each_command_shows_an_example(commands: Commands, command: str) -> None:
    assert re.search(rf"Examples?: flask sse {command}\b", commands.run(command, "--help").stdout)
