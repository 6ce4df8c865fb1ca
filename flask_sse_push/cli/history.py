"""`flask sse history`: prints the events that the broker keeps for a channel."""

from __future__ import annotations

import json

import click

from ..brokers.base import NO_INBOX
from ..protocol.channel import checked_channel
from .common import Push, entry_fields, errors_without_traceback, one_line, shared_broker


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("history")
    @click.argument("channel")
    @click.option("--last", default=20, show_default=True, help="Print the newest N events.", metavar="N")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
    def history(channel: str, last: int, as_json: bool) -> None:
        """Print the events that the broker keeps for CHANNEL, oldest first."""
        with errors_without_traceback():
            checked_channel(channel)
            kept = shared_broker(push).history({channel: 0}, NO_INBOX).channels[channel]
        for entry in kept.entries[-last:] if last > 0 else []:
            fields = entry_fields(entry)
            line = "{id}  {at}  {type}  {data}".format(**{**fields, "data": one_line(fields["data"])})
            click.echo(json.dumps(fields) if as_json else line)
