"""`flask sse publish`: publishes one event."""

from __future__ import annotations

import json

import click

from ..brokers import embedded
from .common import Push, plainly, reachable


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("publish")
    @click.argument("channel")
    @click.argument("data")
    @click.option("--type", "type_", help="Event type; none is a plain message.")
    @click.option("--id", "id_", help="Idempotency id: the same one again publishes nothing.")
    def publish(channel: str, data: str, type_: str | None, id_: str | None) -> None:
        """Publish DATA, JSON or plain text, to CHANNEL."""
        with plainly():
            reachable(push)
            click.echo(push.publish(_json_or_text(data), type_, channel=channel, id=id_))
        if embedded.is_own():
            click.echo(
                "No embedded server was running: one was started for this command and ends with it, "
                "so nobody hears this event. Start the app first.",
                err=True,
            )


def _json_or_text(data: str) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data
