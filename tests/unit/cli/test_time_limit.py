"""The time limit of the commands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from flask import Flask, current_app

from flask_sse_push import InvalidEvent, SSEBlueprint
from flask_sse_push.cli.time_limit import each_within, within
from flask_sse_push.protocol.channel import checked_channel

COMMANDS = [
    "channels",
    "doctor",
    "embedded status",
    "embedded stop",
    "history",
    "publish",
    "relay",
    "stats",
    "tail",
]


def test_a_call_in_time_returns_its_value_or_raises_its_error() -> None:
    assert within(30, lambda: 7) == 7
    with pytest.raises(InvalidEvent):
        within(30, lambda: checked_channel("no name"))
    with pytest.raises(KeyboardInterrupt):
        within(30, interrupt)


def test_an_answer_that_cannot_be_read_ends_with_an_error() -> None:
    with pytest.raises(click.ClickException, match="cannot be read: UnicodeDecodeError: 'utf-8'"):
        within(30, lambda: b"\xff".decode())
    with pytest.raises(click.ClickException, match=r"cannot be read: ValueError: a\\x1b\[2J"):
        within(30, lambda: fail("a\x1b[2J"))


def interrupt() -> None:
    raise KeyboardInterrupt


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_call_knows_the_app() -> None:
    app = Flask("shop")
    with app.app_context():
        assert within(30, lambda: current_app.name) == "shop"


def test_a_call_that_takes_too_long_ends_with_an_error() -> None:
    never = threading.Event()
    began = time.monotonic()
    with pytest.raises(click.ClickException, match=r"the time limit is over.* Take a walk\. --timeout sets"):
        within(0.05, never.wait, "Take a walk.")
    assert time.monotonic() - began < 20
    never.set()


def test_values_come_one_by_one_until_the_time_is_over() -> None:
    never = threading.Event()

    def values() -> Iterator[int]:
        yield 1
        yield 2
        never.wait()

    found = each_within(0.5, values())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(click.ClickException, match="the time limit is over"):
        next(found)
    never.set()
    assert list(each_within(30, [None, 0])) == [None, 0]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_names_its_time_limit(command: str) -> None:
    app = Flask(__name__)
    app.register_blueprint(SSEBlueprint("sse"), url_prefix="/stream")
    group = next(found for found in app.cli.commands.values() if "publish" in getattr(found, "commands", {}))
    assert sorted(names(group)) == COMMANDS
    text = CliRunner().invoke(group, [*command.split(), "--help"]).output
    assert "--timeout" in text
    assert "default: " in text or "20 seconds to answer" in " ".join(text.split())


def names(group: click.Command) -> Iterator[str]:
    """Yields the names of all commands of a group, also of groups inside the group."""
    for name, command in getattr(group, "commands", {}).items():
        inner = list(names(command))
        yield from [f"{name} {each}" for each in inner] or [name]
