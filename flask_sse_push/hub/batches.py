"""Decides which streams get their events in batches, and notes when each batch must be sent."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from ..config import ChannelPolicies

if TYPE_CHECKING:
    from .group import Group


#: The possible waits for a batch, in milliseconds. The wait that a client asks for is rounded down to one of
#: these steps, so that more streams have the same wait and share their batches.
STEPS_MS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


def batch_wait(wanted_ms: int) -> float:
    """How long events wait for a batch, in seconds, if a client asks for `wanted_ms`; 0 means no batches."""
    if not wanted_ms:
        return 0.0
    return max([STEPS_MS[0], *[step for step in STEPS_MS if step <= wanted_ms]]) / 1000


class BatchPolicy:
    """Decides how long events of each channel may wait for a batch.

    :param policies: say how long the events of each channel wait if the client does not ask for a wait.
    """

    def __init__(self, policies: ChannelPolicies) -> None:
        self._policies = policies

    def waits(self, channels: Sequence[str], wanted: float | None) -> dict[str, float] | None:
        """How long events of each channel may wait for a batch, in seconds; None if no event waits.

        :param wanted: the wait in seconds that the client asked for, for all its channels; 0 for no batches;
            None if the client did not ask, so that the channel policies decide.
        """
        if wanted is not None:
            return dict.fromkeys(channels, wanted) if wanted else None
        if not self._policies.have_batches:
            return None
        waits = {name: self._policies[name].batch_ms / 1000 for name in channels}
        return waits if any(waits.values()) else None


class BatchQueue:
    """The groups that have a batch to send later, the earliest first. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Group]] = []
        self._number = count()  # orders groups with the same time, because groups cannot be compared
        #: Time at which the earliest batch must be sent; infinity if no batch waits.
        self.next_due = math.inf

    def add(self, group: Group, due: float) -> None:
        """Notes that a batch of `group` must be sent at the time `due`. A group may be queued twice."""
        heapq.heappush(self._heap, (due, next(self._number), group))
        self.next_due = self._heap[0][0]

    def take(self, now: float) -> list[Group]:
        """Removes and returns the groups whose batch must be sent at the time `now` or earlier.

        A returned group may have sent its batch already.
        """
        groups = []
        while self._heap and self._heap[0][0] <= now:
            groups.append(heapq.heappop(self._heap)[2])
        self.next_due = self._heap[0][0] if self._heap else math.inf
        return groups
