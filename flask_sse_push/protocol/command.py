"""Commands: messages to all workers, which travel through the broker like events."""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .entry import Entry, Publication

logger = logging.getLogger(__name__)

#: The channel of commands. Apps cannot use this name: `!` is not allowed in channel names.
COMMAND_CHANNEL = "!control"

#: Name of the command that takes one channel, or all channels, from the streams of a user.
REVOKE = "revoke"
#: At most this many bytes in one command, because every worker reads every command. One command can join
#: and leave a thousand channels, the most that SSE_PUSH_MAX_CHANNELS allows, with names of 200 characters.
MAX_COMMAND = 500_000


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


def parse_command(entry: Entry) -> Command | None:
    """Reads the command in an entry. If the entry is not a command, logs a warning and returns None."""
    try:
        name, arguments = json.loads(entry.frame.partition(b"\n")[2])
        return Command(name, dict(arguments), entry.id)
    except (TypeError, ValueError):
        logger.warning("ignoring an entry of %r that is not a command", COMMAND_CHANNEL)
        return None
