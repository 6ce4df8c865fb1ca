"""What the commands of `flask sse` share: reading options, reaching the broker, ending with an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from .errors import SSEPushError

if TYPE_CHECKING:
    from .blueprint import SSEBlueprint
    from .brokers.base import Broker


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Ends the command with an error's text alone."""
    try:
        yield
    except SSEPushError as error:
        raise click.ClickException(str(error)) from error


def reachable(blueprint: SSEBlueprint) -> Broker:
    """The broker, when another process can reach it; else the command ends."""
    if blueprint.runtime.settings.broker_url.startswith("memory:"):
        raise click.ClickException(
            "SSE_PUSH_BROKER_URL is memory://, which no other process can reach; "
            "set it to a Redis URL, the same as the app's"
        )
    return blueprint.runtime.broker


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
