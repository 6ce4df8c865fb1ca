"""Backlogs: how many events wait in the app's outboxes. Read by the metrics and by `flask sse doctor`."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from weakref import WeakSet

from flask import Flask, current_app

#: At most this many rows of an outbox are counted.
MOST = 100_000


class Backlog(NamedTuple):
    """The events that wait in one outbox. At most `MOST` rows are counted, the oldest ones."""

    name: str  # the name of the outbox's table
    waiting: int
    age: float  # how long the oldest event has waited, in seconds; 0 if no event waits
    set_aside: int  # events that can never be published


class HasBacklog(Protocol):
    """An outbox."""

    @property
    def name(self) -> str:
        """The name of the outbox's table."""

    def belongs_to(self, app: Flask) -> bool:
        """Whether the database and the blueprint of the outbox are those of an app."""

    def backlog(self) -> Backlog:
        """Returns how many events wait. Blocks for one query."""


#: The outboxes of this process.
backlogs: WeakSet[HasBacklog] = WeakSet()


def of_current_app() -> list[HasBacklog]:
    """Returns the outboxes of the current app, by name. A process may have several apps, as in tests."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    return sorted((each for each in backlogs if each.belongs_to(app)), key=lambda each: each.name)
