"""`flask sse publish`: publishes one event."""

from __future__ import annotations

import json
from functools import partial

import click

from ..brokers import embedded
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
        """Publish DATA, which is JSON or plain text, to CHANNEL. Prints the event's cursor."""
        with errors_without_traceback():
            shared_broker(push)
            event = partial(push.publish, _json_or_text(data), type_, channel=channel, id=id_)
            say(within(timeout, event, "The event is stored once or not at all."))
        if embedded.is_own():
            say(
                "No embedded server was running. This command started one, and the server ends with the "
                "command, so nobody gets this event. Start the app first.",
                err=True,
            )


def _json_or_text(data: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # deeper JSON than Python reads is sent as it is
        return data
