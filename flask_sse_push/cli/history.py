"""`flask sse history`: prints the events that a channel keeps."""

from __future__ import annotations

import json

import click

from ..brokers.base import NO_INBOX
from ..protocol.channel import checked_channel
from .common import Push, entry_fields, one_line, plainly, reachable


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("history")
    @click.argument("channel")
    @click.option("--last", default=20, show_default=True, help="How many events, the newest ones.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def history(channel: str, last: int, as_json: bool) -> None:
        """Print the events that CHANNEL keeps, oldest first."""
        with plainly():
            checked_channel(channel)
            past = reachable(push).history({channel: 0}, NO_INBOX).channels[channel]
        for entry in past.entries[-last:] if last > 0 else []:
            each = entry_fields(entry)
            line = "{id}  {at}  {type}  {data}".format(**{**each, "data": one_line(each["data"])})
            click.echo(json.dumps(each) if as_json else line)
