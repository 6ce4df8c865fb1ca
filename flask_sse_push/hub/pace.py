"""How fast the streams of a worker catch up. They rest between chunks, so that live events are not late."""

from __future__ import annotations

import time

#: At most and at least how many bytes a second all streams that catch up get together. Each event counts its
#: own bytes and `ENTRY_COST`. Reading and sending 8 MB takes a worker about 0.1 s.
HIGHEST, LOWEST = 8_000_000, 4_000_000
#: The worker is busy if `rest` ends this many seconds late.
LATE = 0.01
#: Seconds between two steps to a lower pace.
STEP = 0.1
#: By how much the pace falls in one step, and by how much it rises each time `rest` ends in time.
SLOWER, FASTER = 0.7, 1.02


class Pace:
    """How many bytes of missed events the streams of a worker get in a second.

    The pace falls while `rest` ends late. The processor is then busy with this worker or another program, and
    live events would be late too.
    """

    def __init__(self) -> None:
        self.bytes_a_second: float = HIGHEST
        self._next_at = 0.0  # monotonic time at which the next rest may end
        self._slower_at = 0.0  # monotonic time at which the pace may fall again

    def rest(self, size: int) -> None:
        """Blocks until about `size` further bytes may be sent, and lets other threads run."""
        now = time.monotonic()
        begin = max(now, self._next_at)
        self.add(size, begin)
        time.sleep(begin - now)
        self._adapt(begin, time.monotonic())

    def add(self, size: int, begin: float = 0.0) -> None:
        """Counts sent bytes that `rest` has not counted. `size` is below 0 if `rest` has counted too many."""
        self._next_at = max(begin, self._next_at) + size / self.bytes_a_second

    def _adapt(self, planned: float, now: float) -> None:
        if now - planned <= LATE:
            self.bytes_a_second = min(HIGHEST, self.bytes_a_second * FASTER)
        elif now >= self._slower_at:
            self.bytes_a_second = max(LOWEST, self.bytes_a_second * SLOWER)
            self._slower_at = now + STEP
