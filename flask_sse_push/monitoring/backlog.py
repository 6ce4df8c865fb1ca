"""Backlogs: how many events wait in the app's outboxes. Read by the metrics and by `flask sse doctor`."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from weakref import WeakSet

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

    def backlog(self) -> Backlog:
        """Returns how many events wait. Blocks for one query."""


#: The outboxes of this process. Empty if the app has none. `flask sse relay` runs a relay for each.
backlogs: WeakSet[HasBacklog] = WeakSet()
