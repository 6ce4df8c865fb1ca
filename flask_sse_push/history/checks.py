"""Checks what a worker receives from the broker: other programs may have written or published it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ..brokers.base import History
from ..brokers.foreign import ForeignData

#: For this many seconds after a forged id, the worker does not read history because of further ids that are
#: ahead of the clock.
CALM = 1.0


class Doubt(NamedTuple):
    """An id that is ahead of the broker's clock, and the monotonic time at which it arrived.

    `was_read` says whether the channels were read again because of this id.
    """

    id: int
    at: float
    was_read: bool


class Checks:
    """Finds received data that are not entries of events. Reports each source of such data once."""

    def __init__(self) -> None:
        self._foreign = ForeignData()
        self._doubts: dict[str, Doubt] = {}  # the newest id in doubt of each channel
        self._calm_until = 0.0

    def doubt(self, channel: str, id: int) -> bool:
        """Notes an id that is ahead of the broker's clock.

        :returns: whether the channels must be read again; False while someone forges such ids.
        """
        now = time.monotonic()
        must_read = now >= self._calm_until
        self._doubts[channel] = Doubt(id, now, must_read)
        return must_read

    def judge(self, believes: Callable[[int], bool], sent_at: float) -> bool:
        """Decides by a reply of the broker which ids in doubt were forged. Reports the forged ids.

        :param believes: says whether an id can be right, after the reply.
        :param sent_at: monotonic time at which the call of the reply began.
        :returns: whether the channels must be read again.
        """
        must_read = False
        for channel, doubt in list(self._doubts.items()):
            if doubt.at >= sent_at:
                continue
            del self._doubts[channel]
            if believes(doubt.id):
                must_read = must_read or not doubt.was_read
            else:
                self._calm_until = time.monotonic() + CALM
                self.refuse(channel, ValueError(f"the id {doubt.id} is ahead of the broker's clock"))
        return must_read

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
