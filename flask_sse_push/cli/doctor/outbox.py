"""Checks the app's outboxes: whether a relay publishes what their transactions have committed."""

from __future__ import annotations

from collections.abc import Iterator

from ...monitoring.backlog import Backlog, HasBacklog, of_current_app
from .finding import Finding, broken, ok, warning

#: If an event has waited for this many seconds, no relay works.
LATE = 10.0


def examine_outboxes() -> Iterator[Finding]:
    """Yields findings about each outbox of the app. Blocks for one query to the database for each."""
    for outbox in of_current_app():
        yield from _examine(outbox)


def _examine(outbox: HasBacklog) -> Iterator[Finding]:
    name = f"outbox {outbox.name}"
    try:
        backlog = outbox.backlog()
    except Exception as error:  # each database driver has exceptions of its own
        yield broken(
            name,
            f"its table cannot be read: {getattr(error, 'orig', error)}",
            "transactions that publish cannot be committed, or no event of theirs is published",
            "start the database; if the table does not exist, call outbox.create_all(), or add the SQL of "
            "docs/database.md to a migration",
        )
        return
    if backlog.age < LATE:
        yield ok(name, f"{backlog.waiting} events wait")
    else:
        yield broken(
            name,
            f"{backlog.waiting} events wait, the oldest for {backlog.age:.0f} seconds",
            "no relay publishes what the app has committed",
            "run `flask sse relay`, or pass relay=True to Outbox; if a relay runs, read its log",
        )
    yield from _set_aside(name, backlog)


def _set_aside(name: str, backlog: Backlog) -> Iterator[Finding]:
    if backlog.set_aside:
        yield warning(
            name,
            f"{backlog.set_aside} events were set aside",
            "they could not be published, so nobody has got them",
            f"read the column `problem` of {backlog.name}; delete the rows, or set `problem` to NULL to try "
            "again",
        )
