"""`flask sse channels`: lists the channels that have a history."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from ..protocol.channel import BROADCAST
from ..protocol.command import COMMAND_CHANNEL
from ..protocol.cursor import MAX_ID
from .common import Push, errors_without_traceback, one_line, say, shared_broker
from .time_limit import time_limit, within


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("channels")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
    @time_limit(30)
    def channels(as_json: bool, timeout: float) -> None:
        """List the channels that have a history, the one with the newest event first.

        Example: flask sse channels --json
        """
        with errors_without_traceback():
            broker = shared_broker(push)
            heads = within(timeout, lambda: broker.heads(MOST))
        for row in _channels(heads, time.time()):
            line = f"{one_line(row['channel'])}  newest {row['seconds']:.0f} seconds ago"
            say(json.dumps(row) if as_json else line)
        if not heads.keys() - OWN:
            say("No channel has events: nothing was published yet, or all events have expired.", err=True)


#: At most how many channels the command lists.
MOST = 10_000
#: The channels that no app names, so they are not listed.
OWN = {BROADCAST, COMMAND_CHANNEL}


def _channels(heads: dict[str, int], now: float) -> list[dict[str, Any]]:
    """Returns a row for each channel, the newest first.

    :param heads: for each channel, the id of its newest entry: microseconds of the broker's clock.
    :param now: the current Unix time in seconds.
    """
    named = {name: head for name, head in heads.items() if name not in OWN}
    newest = sorted(named.items(), key=lambda pair: -pair[1])
    return [
        {"channel": name, "seconds": round(max(0.0, now - min(head, MAX_ID) / 1e6), 1), "id": head}
        for name, head in newest
    ]
