"""Which streams get their events in batches, and when each batch goes out."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import count
from typing import TYPE_CHECKING

from ..protocol.channel import BROADCAST

if TYPE_CHECKING:
    from .group import Group


#: A client's wish is taken down to one of these, so that streams share their batches.
STEPS_MS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


def batch_wait(wish_ms: int) -> float:
    """The seconds that streams wait whose clients asked for `wish_ms`; 0 is no batching."""
    if not wish_ms:
        return 0.0
    return max([STEPS_MS[0], *[each for each in STEPS_MS if each <= wish_ms]]) / 1000


class BatchPolicy:
    """For which streams events wait, and how long.

    :param defaults: patterns of channels (fnmatch), each with the milliseconds its events may wait; the first
        that matches counts.
    """

    def __init__(self, defaults: Sequence[tuple[str, int]] = ()) -> None:
        self._defaults = defaults

    def waits(self, channels: Sequence[str], asked: float | None) -> dict[str, float] | None:
        """Seconds that events of each channel may wait; None when no event does.

        :param asked: the client's own wish for all channels, 0 for none; None: as the app has it.
        """
        if asked is not None:
            return dict.fromkeys(channels, asked) if asked else None
        if not self._defaults:
            return None
        waits = {name: self._default(name) for name in channels}
        return waits if any(waits.values()) else None

    def _default(self, channel: str) -> float:
        if channel == BROADCAST:
            return 0.0
        found = (wait for pattern, wait in self._defaults if fnmatchcase(channel, pattern))
        return next(found, 0) / 1000


class BatchQueue:
    """The groups with events that wait, by the time when they are due. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Group]] = []
        self._number = count()  # groups cannot be compared

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, group: Group, due: float) -> None:
        """Notes that something in `group` is due then. Earlier notes stay: they do no harm."""
        heapq.heappush(self._heap, (due, next(self._number), group))

    def timeout(self, now: float, most: float) -> float:
        """Seconds until the first is due, from 0 to `most`."""
        return min(most, max(0.0, self._heap[0][0] - now)) if self._heap else most

    def is_due(self, now: float) -> bool:
        """Whether there is one."""
        return bool(self._heap) and self._heap[0][0] <= now

    def take(self, now: float) -> Iterator[Group]:
        """Takes out the groups that are due; what waits in them may have gone meanwhile."""
        while self.is_due(now):
            yield heapq.heappop(self._heap)[2]
