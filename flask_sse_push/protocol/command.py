"""Commands to all workers: messages that travel through the broker as events do."""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .entry import Entry, Publication

logger = logging.getLogger(__name__)

#: The channel of commands. `!` is outside the grammar of channel names.
COMMAND_CHANNEL = "!control"

#: The command that takes one channel, or all of them, from a user's streams.
REVOKE = "revoke"
#: Bytes of one command: every worker reads it.
MAX_COMMAND = 100_000


class Command(NamedTuple):
    """A command: the name of its handler, and arguments that JSON can hold."""

    name: str
    arguments: dict[str, Any]


def command_publication(command: Command) -> Publication:
    """The command as a publication, for `Broker.publish`.

    :raises InvalidEvent: when JSON cannot hold its arguments, or they are too long.
    """
    try:
        body = json.dumps([command.name, command.arguments]).encode()
    except (TypeError, ValueError) as error:
        raise InvalidEvent("command", f"{command.name}: {error}") from error
    if len(body) > MAX_COMMAND:
        raise InvalidEvent("command", f"{command.name}: has {len(body)} bytes, at most {MAX_COMMAND} go")
    return Publication(body, (COMMAND_CHANNEL,))


def parse_command(entry: Entry) -> Command | None:
    """Reads the command in an entry. For any other entry logs a warning and returns None."""
    try:
        name, arguments = json.loads(entry.frame.partition(b"\n")[2])
        return Command(name, dict(arguments))
    except (TypeError, ValueError):
        logger.warning("ignoring an entry of %r that is not a command", COMMAND_CHANNEL)
        return None
