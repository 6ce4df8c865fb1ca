"""`flask sse …`: the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .brokers import embedded
from .errors import SSEPushError

if TYPE_CHECKING:
    from .blueprint import SSEBlueprint


def add_commands(blueprint: SSEBlueprint) -> None:
    """Gives the blueprint its command group; it is named as the blueprint."""

    @blueprint.cli.command("publish")
    @click.argument("channel")
    @click.argument("data")
    @click.option("--type", "type_", help="Event type; none is a plain message.")
    @click.option("--id", "id_", help="Idempotency id: the same one again publishes nothing.")
    def publish(channel: str, data: str, type_: str | None, id_: str | None) -> None:
        """Publish DATA, JSON or plain text, to CHANNEL."""
        if blueprint.runtime.settings.broker_url.startswith("memory:"):
            raise click.ClickException(
                "SSE_PUSH_BROKER_URL is memory://, which no other process can reach; "
                "set it to a Redis URL, the same as the app's"
            )
        try:
            click.echo(blueprint.publish(_json_or_text(data), type_, channel=channel, id=id_))
        except SSEPushError as error:
            raise click.ClickException(str(error)) from error
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
