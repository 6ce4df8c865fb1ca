"""`flask sse channels`: lists the channels that have a history."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from ..protocol.channel import BROADCAST
from ..protocol.command import COMMAND_CHANNEL
from .common import Push, errors_without_traceback, shared_broker


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("channels")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
    def channels(as_json: bool) -> None:
        """List the channels that have a history, the one with the newest event first."""
        with errors_without_traceback():
            heads = shared_broker(push).heads(MOST)
        for row in _channels(heads, time.time()):
            line = "{channel}  newest {seconds:.0f} seconds ago".format(**row)
            click.echo(json.dumps(row) if as_json else line)


#: At most how many channels the command lists.
MOST = 10_000


def _channels(heads: dict[str, int], now: float) -> list[dict[str, Any]]:
    """Returns a row for each channel, the newest first.

    :param heads: for each channel, the id of its newest entry: microseconds of the broker's clock.
    :param now: the current Unix time in seconds.
    """
    named = {name: head for name, head in heads.items() if name not in (BROADCAST, COMMAND_CHANNEL)}
    newest = sorted(named.items(), key=lambda pair: -pair[1])
    return [
        {"channel": name, "seconds": round(max(0.0, now - head / 1e6), 1), "id": head}
        for name, head in newest
    ]
