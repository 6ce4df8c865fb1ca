"""Checks what a worker receives from the broker: other programs may have written or published it."""

from __future__ import annotations

from ..brokers.base import History
from ..brokers.foreign import ForeignData


class Checks:
    """Tells the entries of events from other data. Reports each source of other data once."""

    def __init__(self) -> None:
        self._foreign = ForeignData()

    def refuse(self, channel: str, problem: ValueError) -> bool:
        """Reports a message on a channel that is not an event, unless the channel was reported before.

        :returns: whether the message was reported.
        """
        return self._foreign.report(f"a message on the channel {channel!r}", str(problem))

    def drop_wrong_bodies(self, name: str, history: History) -> None:
        """Drops entries that no client must get from `history`. Their events count as lost."""
        found = history.channels[name]
        for entry in found.entries:
            try:
                entry.check_body()
            except ValueError as error:
                self._foreign.report(f"an event in the history of the channel {name!r}", str(error))
                left = [other for other in found.entries if other.id > entry.id]
                history.channels[name] = found._replace(start=max(found.start, entry.id), entries=left)
