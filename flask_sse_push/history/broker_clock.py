"""The clock of one shard of the broker, as a worker knows it from the replies to its calls."""

from __future__ import annotations

from typing import NamedTuple

#: By how many seconds in each second the clocks of broker and worker may drift apart. Computers whose time is
#: set by NTP stay below this number.
DRIFT = 0.0001
#: The same for `stored_by`, which decides about rights. So the number is on the safe side.
SAFE_DRIFT = 0.001


class Reading(NamedTuple):
    """What one reply says about the broker's clock."""

    offset: float  # seconds to add to the worker's monotonic time
    error: float  # by how many seconds `offset` may be wrong
    at: float  # monotonic time of the reply

    def error_at(self, now: float) -> float:
        """By how many seconds the offset may be wrong at the monotonic time `now`."""
        return self.error + (now - self.at) * DRIFT


class BrokerClock:
    """How far the broker's clock is ahead of this worker's monotonic clock.

    An event's id is the time at which the broker stored the event, in microseconds. The reply to a call also
    has the newest id: the broker's clock had this time between the start of the call and the reply. The
    quickest call has the smallest error, so this object keeps its reading.

    If the broker's clock was set back, or if the broker takes no writes, ids count on by one and no longer
    follow the clock. Then two readings contradict each other, and the offset is unknown.
    """

    def __init__(self) -> None:
        #: What to add to monotonic seconds to get the broker's time, in seconds since 1970; None if unknown.
        self.offset: float | None = None
        self._best: Reading | None = None
        # Of the newest reply: the newest id that it names, and the monotonic time at which it came.
        self._last, self._received_at = 0, 0.0

    def note(self, last: int, sent_at: float, received_at: float) -> None:
        """Takes the reading of one reply.

        :param last: the newest id of the broker when it made the reply.
        :param sent_at: monotonic time at which the call began.
        :param received_at: monotonic time at which its reply came.
        """
        self._last, self._received_at = last, received_at
        error = (received_at - sent_at) / 2
        reading = Reading(last / 1e6 - sent_at - error, error, received_at)
        best = self._best
        if best is None:
            self._best, self.offset = reading, reading.offset
            return
        allowed = best.error_at(received_at)
        if abs(reading.offset - best.offset) > allowed + error:
            self._best, self.offset = reading, None
        elif error <= allowed:
            self._best, self.offset = reading, reading.offset
        else:
            self.offset = best.offset

    def stored_at(self, id: int) -> float | None:
        """Returns the monotonic time at which the broker stored the event with this id; None if unknown."""
        return None if self.offset is None else id / 1e6 - self.offset

    def stored_by(self, id: int) -> float:
        """Returns a monotonic time at which the broker had certainly stored the event with this id.

        The time is never too early, also if the broker's clock was set back. Usually it is too late by some
        milliseconds. `stored_at` returns the most likely time instead.
        """
        return self._received_at - (self._last - id) / 1e6 * (1 - SAFE_DRIFT)
