"""What the commands of `flask sse` share: the broker, errors, options, and printing events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import click

from ..brokers.base import Broker
from ..errors import SSEPushError
from ..protocol.cursor import Cursor
from ..protocol.data import unmarked
from ..protocol.entry import Entry
from ..web.services import Services


class Push(Protocol):
    """The part of the blueprint that the commands use."""

    @property
    def services(self) -> Services:
        """The parts of this process."""

    def publish(self, data: Any, type: str | None = None, *, channel: str, id: str | None = None) -> str:
        """Publishes one event. Returns its cursor."""


@contextlib.contextmanager
def errors_without_traceback() -> Iterator[None]:
    """If the block raises an `SSEPushError`, prints the message without a traceback, and exits with 1."""
    try:
        yield
    except SSEPushError as error:
        raise click.ClickException(str(error)) from error


def shared_broker(push: Push) -> Broker:
    """Returns the broker that the app's workers use.

    :raises click.ClickException: if the URL is `memory://`, which no other process can reach.
    """
    if push.services.settings.broker_url.startswith("memory:"):
        raise click.ClickException(
            "SSE_PUSH_BROKER_URL is memory://, which no other process can reach; "
            "set it to a Redis URL, the same as the app's"
        )
    return push.services.publishing.broker


def read_headers(given: Iterable[str]) -> dict[str, str]:
    """Returns the headers that the options `--header 'Name: value'` set, by name.

    :raises click.BadParameter: if an option has no name or no colon.
    """
    headers = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{text!r} is not 'Name: value'", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers


#: `one_line` cuts a text after this many characters. Afterwards it escapes control characters.
MAX_LINE = 200


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Returns the fields of an event that the commands print.

    These are the cursor (`id`), the local time when it was published (`at`), `type` and `data`.
    """
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
        "data": unmarked("\n".join(fields.get("data", [])))[0],
    }


def one_line(text: str) -> str:
    """Returns `text` as one short line. Escapes control characters, because a terminal would obey them."""
    line = text[:MAX_LINE]
    if not text.isprintable():
        line = line.encode("unicode_escape").decode()
    return line + ("…" if len(text) > MAX_LINE else "")
