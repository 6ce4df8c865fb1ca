"""Commands: messages to all workers, which travel through the broker like events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .channel import is_channel
from .entry import Entry, Publication

#: The channel of commands. Apps cannot use this name: `!` is not allowed in channel names.
COMMAND_CHANNEL = "!control"

#: Name of the command that takes one channel, or all channels, from the streams of a user.
REVOKE = "revoke"
#: Name of the command that ends the streams of one browser's session.
REVOKE_SESSION = "revoke.session"
#: At most this many bytes in one command, because every worker reads every command. One command can join
#: and leave a thousand channels, the most that SSE_PUSH_MAX_CHANNELS allows, with names of 200 characters.
MAX_COMMAND = 500_000
#: The command that makes all workers report to the open admin pages, and the most seconds that it lasts.
WATCH, MAX_WATCH = "admin.watch", 60
#: The highest `last` of a command that joins channels.
MAX_NEWEST = 10**6


class Command(NamedTuple):
    """A command to all workers: the name of a handler, and the arguments for the handler as JSON values."""

    name: str
    arguments: dict[str, Any]
    id: int = 0  # the position of the command in the broker's order; 0 if it was not published yet


def command_publication(command: Command) -> Publication:
    """Returns a command in the form that `Broker.publish` takes.

    :raises InvalidEvent: if an argument cannot be written as JSON, or if the command is too long.
    """
    try:
        body = json.dumps([command.name, command.arguments], allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidEvent("command", f"{command.name}: {error}") from error
    if len(body) > MAX_COMMAND:
        raise InvalidEvent("command", f"{command.name}: has {len(body)} bytes, must be at most {MAX_COMMAND}")
    return Publication(body, (COMMAND_CHANNEL,))


def parse_command(entry: Entry) -> Command:
    """Reads the command in an entry.

    Handlers need not check the types of the arguments again.

    :raises ValueError: if the entry is not a command, or if an argument of a known command has a wrong type.
    """
    try:
        name, arguments = json.loads(entry.frame.partition(b"\n")[2])
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not a command: {error}") from error
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("it is not a command: it is not a name with arguments")
    for key, is_valid in _ARGUMENTS.get(name, {}).items():
        if not is_valid(arguments.get(key)):
            raise ValueError(f"the argument {key!r} of the command {name!r} is not valid")
    return Command(name, arguments, entry.id)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_count_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value <= MAX_NEWEST)


def _are_channels(value: object) -> bool:
    """Whether `value` is a list of channel names, perhaps an empty list."""
    return isinstance(value, list) and all(isinstance(name, str) and is_channel(name) for name in value)


#: How to check the arguments of this package's commands. A missing argument counts as None.
_ARGUMENTS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "disconnect": dict.fromkeys(("user_id", "connection", "channel"), _is_text_or_none),
    "channels": {
        "connection": _is_text,
        "join": _are_channels,
        "leave": _are_channels,
        "since": _is_text_or_none,
        "asked": _is_text_or_none,
        "last": _is_count_or_none,
    },
    REVOKE: {"user_id": _is_text, "channel": _is_text_or_none, "reason": _is_text},
    REVOKE_SESSION: {"session": _is_text, "reason": _is_text},
    "ask": {
        **dict.fromkeys(("ticket", "what", "asker"), _is_text),
        **dict.fromkeys(("channel", "user_id"), _is_text_or_none),
        "details": lambda value: value is None or isinstance(value, dict),
    },
    WATCH: {"seconds": lambda value: isinstance(value, int) and 0 < value <= MAX_WATCH},
    "run.stop": {"key": _is_text},
}
