"""What the commands of `flask sse` share: reading options, reaching the broker, ending with an error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import click

from ..brokers.base import Broker
from ..errors import SSEPushError
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..web.services import Services


class Push(Protocol):
    """What the commands use of the blueprint."""

    @property
    def services(self) -> Services:
        """The parts of this process."""

    def publish(self, data: Any, type: str | None = None, *, channel: str, id: str | None = None) -> str:
        """Publishes one event; returns its cursor."""


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Ends the command with an error's text alone."""
    try:
        yield
    except SSEPushError as error:
        raise click.ClickException(str(error)) from error


def reachable(push: Push) -> Broker:
    """The broker, when another process can reach it; else the command ends."""
    if push.services.settings.broker_url.startswith("memory:"):
        raise click.ClickException(
            "SSE_PUSH_BROKER_URL is memory://, which no other process can reach; "
            "set it to a Redis URL, the same as the app's"
        )
    return push.services.publishing.broker


def read_headers(given: Iterable[str]) -> dict[str, str]:
    """Headers from `--header 'Name: value'`.

    :raises click.BadParameter: for what is no header.
    """
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{each!r} is not 'Name: value'", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers


#: Characters of an event's text in a list.
LONGEST = 200


def entry_fields(entry: Entry) -> dict[str, Any]:
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


def one_line(text: str) -> str:
    """One line of a terminal: control characters, which could steer it, are shown as what they are."""
    line = text[:LONGEST].encode("unicode_escape").decode() if not text.isprintable() else text[:LONGEST]
    return line + ("…" if len(text) > LONGEST else "")
