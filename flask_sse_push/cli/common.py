"""What the commands of `flask sse` share: the broker, errors, options, and printing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import click

from ..brokers.base import Broker
from ..brokers.url import serves_one_process
from ..config import SHARE_BROKER
from ..errors import SSEPushError
from ..protocol.cursor import Cursor
from ..protocol.data import unmarked
from ..protocol.entry import Entry
from ..protocol.printable import printable
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
        raise click.ClickException(printable(str(error))) from error


def shared_broker(push: Push) -> Broker:
    """Returns the broker that the app's workers use.

    :raises click.ClickException: if the URL is `memory://`, which no other process can reach.
    """
    if serves_one_process(push.services.settings):
        raise click.ClickException(
            "SSE_PUSH_BROKER_URL is memory://, which no other process can reach; for the app and for this "
            f"command, {SHARE_BROKER}"
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


#: How the commands print a local time: with its difference from UTC, since servers are often in other zones.
TIME_FORMAT = "%Y-%m-%d %H:%M:%S %z"
#: At most this many characters of a text stand on a line.
MAX_LINE = 200


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Returns the fields of an event that the commands print.

    These are the cursor (`id`), the local time when it was published (`at`, with its difference from UTC),
    `type` and `data`. Bytes that are not UTF-8 become escapes, such as `\\xff`.
    """
    fields: dict[str, list[str]] = {}
    for line in entry.frame.decode(errors="backslashreplace").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    return {
        "id": str(Cursor(entry.epoch, entry.id)),
        "at": local_time(entry.id / 10**6),
        "type": fields.get("event", ["message"])[-1],
        "data": unmarked("\n".join(fields.get("data", [])))[0],
    }


def local_time(seconds: float) -> str:
    """Returns a Unix time in seconds as local time, with its difference from UTC."""
    try:
        return time.strftime(TIME_FORMAT, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # another program wrote an id that is no time
        return "at no time"


def one_line(text: str, most: int = MAX_LINE) -> str:
    """Returns the beginning of `text` as one line, with escapes for what a terminal would obey.

    :param most: at most this many characters of `text` are shown.
    """
    return printable(text[:most]) + ("…" if len(text) > most else "")


def say(line: str, *, mark: str = "", err: bool = False) -> None:
    """Prints a line. Escapes what the terminal would obey, and what its encoding does not have.

    :param mark: printed before the line as it is, so it may have colors.
    :param err: whether to print to the error output.
    """
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(mark + printable(line).encode(encoding, "backslashreplace").decode(encoding), err=err)
