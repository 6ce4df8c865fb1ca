"""Commands: how they travel, and how a worker finds them among its events."""

from __future__ import annotations

import logging

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.errors import InvalidEvent
from flask_sse_push.history.channel_cache import ChannelCache
from flask_sse_push.history.history_cache import Dispatch
from flask_sse_push.hub.commands import Commands, Effect
from flask_sse_push.protocol.channel import checked_channel
from flask_sse_push.protocol.command import (
    COMMAND_CHANNEL,
    MAX_COMMAND,
    Command,
    command_publication,
    parse_command,
)
from flask_sse_push.protocol.entry import Entry
from tests.support.simulation import World


def entry(id: int, body: bytes) -> Entry:
    return Entry("e", id, 0, body)


def command(id: int, name: str = "go") -> Entry:
    return entry(id, command_publication(Command(name, {})).body)


def test_a_command_comes_out_as_it_went_in() -> None:
    sent = Command("do", {"who": "line\nend: ü", "list": [1, None, True]})
    going = command_publication(sent)
    assert going.channels == (COMMAND_CHANNEL,)
    assert parse_command(entry(1, going.body)) == sent._replace(id=1)


def test_no_stream_or_publisher_can_use_the_channel_of_commands() -> None:
    with pytest.raises(InvalidEvent, match="forbidden character"):
        checked_channel(COMMAND_CHANNEL)


NOT_COMMANDS = [
    b"",
    b"{}",
    b"[1]",
    b'["a", 5]',
    b'["a", [["x", 1]]]',
    b'[["a"], {}]',
    b"\xff",
    b"data: x\n\n",
    b"null",
    b"[" * 100_000,
    b'["disconnect", {"connection": ["k1"]}]',
    b'["channels", {"connection": "k1", "join": [1], "leave": []}]',
    b'["channels", {"connection": "k1", "join": "abc", "leave": []}]',
    b'["channels", {"connection": "k1", "join": ["a b"], "leave": []}]',
    b'["channels", {"connection": "k1", "join": ["a"], "leave": [], "since": 5}]',
    b'["channels", {"connection": "k1", "join": ["a"], "leave": [], "last": "3"}]',
    b'["channels", {"join": ["a"], "leave": []}]',
    b'["revoke", {"user_id": "7"}]',
    b'["revoke", {"reason": "x"}]',
    b'["ask", {}]',
    b'["run.stop", {"key": null}]',
]


@pytest.mark.parametrize("body", NOT_COMMANDS)
def test_what_is_no_command_is_logged_once_and_ignored(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"is not a command|is not valid"):
        parse_command(entry(1, body))
    commands, control = Commands(), ChannelCache(10)
    found = commands.split(control, [(control, entry(id, body)) for id in (1, 2)])
    assert [command for _, command in found] == [None, None, None]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [COMMAND_CHANNEL in record.getMessage() for record in errors] == [True]


def test_a_command_that_json_cannot_hold_or_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="of type set"):
        command_publication(Command("do", {"who": {1}}))
    with pytest.raises(InvalidEvent, match=f"at most {MAX_COMMAND}"):
        command_publication(Command("do", {"who": "x" * MAX_COMMAND}))


def test_entries_are_split_at_the_commands_among_them() -> None:
    commands, control, news = Commands(), ChannelCache(10), ChannelCache(10)
    entries = [(news, entry(1, b"a")), (control, command(2)), (control, command(3, "stop"))]
    entries.append((news, entry(4, b"b")))
    control.head = 3
    assert commands.split(control, entries) == [
        (entries[:1], Command("go", {}, 2)),
        ([], Command("stop", {}, 3)),
        (entries[3:], None),
    ]
    assert commands.newest == 3


@pytest.mark.usefixtures("simulation")
def test_entries_without_a_command_are_not_searched_for_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.populate()
    calls: list[object] = []
    monkeypatch.setattr(world.workers[0].hub.commands, "split", lambda *args: calls.append(args))
    world.publish([(["a"], [], None)])
    world.settle()
    assert world.clients[0].stream.account.has_got(1)
    assert calls == []


@pytest.mark.usefixtures("simulation")
def test_a_command_that_is_held_back_is_handled_when_it_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.populate()
    hub = world.workers[0].hub
    control = hub._history_cache.caches[COMMAND_CHANNEL]
    held = command(control.head + 1)
    control.append(held)
    dispatches = [Dispatch([], {}, False), Dispatch([(control, held)], {}, False)]
    monkeypatch.setattr(hub._history_cache, "take", lambda items: dispatches.pop(0))
    handled: list[object] = []

    def handler(arguments: object) -> list[Effect]:
        handled.append(arguments)
        return []

    hub.commands.on("go", handler)
    hub._dispatcher.dispatch([])
    assert handled == []
    hub._dispatcher.dispatch([])
    assert handled == [{}]


def test_a_handler_gets_the_arguments_and_its_effects_are_returned() -> None:
    commands = Commands()
    done: list[object] = []

    def effect() -> None:
        done.append("run")

    def handler(arguments: object) -> list[Effect]:
        done.append(arguments)
        return [effect]

    commands.on("go", handler)
    assert commands.handle(Command("go", {"n": 1})) == [effect]
    assert done == [{"n": 1}]


def test_an_unknown_command_and_a_failing_handler_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    commands = Commands()
    commands.on("break", lambda arguments: [arguments["nothing"]])
    with caplog.at_level(logging.WARNING):
        assert commands.handle(Command("fly", {})) == []
        assert commands.handle(Command("break", {})) == []
    assert "unknown command 'fly'" in caplog.text
    assert "'break' failed" in caplog.text


def test_disconnect_must_say_which_streams() -> None:
    announcer = MessageAnnouncer.from_url("memory://")
    with pytest.raises(InvalidEvent, match="needs a user_id, a connection or a channel"):
        announcer.disconnect()
    with pytest.raises(InvalidEvent, match="channel"):
        announcer.disconnect(channel="*")
    for empty in ({"user_id": "", "channel": "a"}, {"connection": "", "user_id": 7}):
        with pytest.raises(InvalidEvent, match="empty"):
            announcer.disconnect(**empty)
