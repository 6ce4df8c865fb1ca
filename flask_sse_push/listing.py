"""`flask sse channels`, `history` and `stats`: looking at what the broker keeps and what the workers do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from .brokers.base import BROADCAST, Entry
from .control import CONTROL
from .cursor import Cursor
from .event import checked_channel
from .options import plainly, reachable

if TYPE_CHECKING:
    from .blueprint import SSEBlueprint

#: The inbox of a call whose echo nobody waits for.
NOBODY = "nobody"
#: Channels listed at most.
MOST = 10_000
#: Characters of an event's text in a list.
LONGEST = 200


def add_commands(blueprint: SSEBlueprint) -> None:
    """Gives the blueprint's command group the commands that look."""

    @blueprint.cli.command("channels")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def channels(as_json: bool) -> None:
        """List the channels that have a history, the one with the newest event first."""
        with plainly():
            heads = reachable(blueprint).heads(MOST)
        for each in _channels(heads, time.time()):
            line = "{channel}  newest {seconds:.0f} seconds ago".format(**each)
            click.echo(json.dumps(each) if as_json else line)

    @blueprint.cli.command("history")
    @click.argument("channel")
    @click.option("--last", default=20, show_default=True, help="How many events, the newest ones.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def history(channel: str, last: int, as_json: bool) -> None:
        """Print the events that CHANNEL keeps, oldest first."""
        with plainly():
            checked_channel(channel)
            past = reachable(blueprint).history({channel: 0}, NOBODY).channels[channel]
        for entry in past.entries[-last:] if last > 0 else []:
            each = shown(entry)
            line = "{id}  {at}  {type}  {data}".format(**{**each, "data": short(each["data"])})
            click.echo(json.dumps(each) if as_json else line)

    @blueprint.cli.command("stats")
    def stats() -> None:
        """Print the figures of all workers that have streams, one JSON object a line, and their sum."""
        with plainly():
            reachable(blueprint)
            workers = blueprint.runtime.inquiries.stats()
        for figures in workers:
            click.echo(json.dumps(figures))
        click.echo(json.dumps({"streams": sum(each["streams"] for each in workers), "workers": len(workers)}))


def _channels(heads: dict[str, int], now: float) -> list[dict[str, Any]]:
    """What is shown of each channel. Ids are microseconds of the broker's clock."""
    named = {name: head for name, head in heads.items() if name not in (BROADCAST, CONTROL)}
    newest = sorted(named.items(), key=lambda pair: -pair[1])
    return [
        {"channel": name, "seconds": round(max(0.0, now - head / 1e6), 1), "id": head}
        for name, head in newest
    ]


def shown(entry: Entry) -> dict[str, Any]:
    """An event's cursor, type, data, and when it was published."""
    fields: dict[str, list[str]] = {}
    for line in entry.frame.decode().split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.id / 1e6))
    return {
        "id": str(Cursor(entry.epoch, entry.id)),
        "at": at,
        "type": fields.get("event", ["message"])[-1],
        "data": "\n".join(fields.get("data", [])),
    }


def short(text: str) -> str:
    """One line of a terminal: control characters, which could steer it, are shown as what they are."""
    line = text[:LONGEST].encode("unicode_escape").decode() if not text.isprintable() else text[:LONGEST]
    return line + ("…" if len(text) > LONGEST else "")
