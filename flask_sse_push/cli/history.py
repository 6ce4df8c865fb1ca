"""`flask sse history`: prints the events that the broker keeps for a channel."""

from __future__ import annotations

import json

import click

from ..brokers.base import NO_INBOX
from ..protocol.channel import checked_channel
from .common import Push, entry_fields, errors_without_traceback, one_line, say, shared_broker
from .time_limit import time_limit, within

#: A position below the one that the broker takes for damaged data, so that it reads on beyond such data.
BEFORE_ALL = -1


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("history")
    @click.argument("channel")
    @click.option(
        "--last",
        type=click.IntRange(1),
        default=20,
        show_default=True,
        help="Print the newest N events.",
        metavar="N",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
    @time_limit(30)
    def history(channel: str, last: int, as_json: bool, timeout: float) -> None:
        """Print the events that the broker keeps for CHANNEL, oldest first. Exits with 1 if it keeps none.

        Leaves out data that other programs have written; an error message names such data.

        Example: flask sse history news --last 5
        """
        with errors_without_traceback():
            checked_channel(channel)
            broker = shared_broker(push)
            kept = within(timeout, lambda: broker.history({channel: BEFORE_ALL}, NO_INBOX).channels[channel])
        entries = [*kept.earlier, *kept.entries]
        for entry in entries[-last:]:
            fields = entry_fields(entry)
            line = "  ".join(one_line(fields[name]) for name in ("id", "at", "type", "data"))
            say(json.dumps(fields) if as_json else line)
        if not entries:
            raise click.ClickException(
                f"the broker keeps no events of the channel {channel}: nothing was published to it, or its "
                "events have expired. `flask sse channels` lists the channels that have events"
            )
