"""`flask sse publish`: publishes one event."""

from __future__ import annotations

import json
import re
from functools import partial

import click

from .common import Push, errors_without_traceback, say, shared_broker
from .time_limit import time_limit, within


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("publish")
    @click.argument("channel")
    @click.argument("data")
    @click.option("--type", "type_", help="The event's type. Without it, the event is a plain message.")
    @click.option("--id", "id_", help="Idempotency id: publishing the same id again stores nothing.")
    @time_limit(30)
    def publish(channel: str, data: str, type_: str | None, id_: str | None, timeout: float) -> None:
        """Publish DATA, which is JSON or plain text, to CHANNEL. Prints the event's cursor.

        Example: flask sse publish news '{"title": "Hello"}' --type headline
        """
        with errors_without_traceback():
            shared_broker(push)
            event = partial(push.publish, _json_or_text(data), type_, channel=channel, id=id_)
            say(within(timeout, event, "The event is stored once or not at all."))
        if problem := _json_problem(data):
            say(f"DATA was sent as text, because it is not JSON: {problem}", err=True)


#: How data begin that were probably meant to be JSON: with an object, an array or a quoted text.
_LIKE_JSON = re.compile(r"""\s*(\{\s*(["'}]|\w+\s*:|$)|\[\s*(["'{\[\]0-9-]|$)|")""")


def _json_problem(data: str) -> str:
    """Returns why data that look like JSON are not valid JSON; "" if they are valid, or plain text."""
    if not _LIKE_JSON.match(data):
        return ""
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return f"{error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _json_or_text(data: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # deeper JSON than Python reads is sent as it is
        return data
