"""What a stream does while it waits for the events that its client missed."""

from __future__ import annotations

import math
import time

from ..config import Settings
from ..errors import ErrorCode
from ..history.recovery_driver import Recovery
from ..protocol.frames import comment, error_frame

#: How long a new stream waits for the broker before its client gets `sse.error`, in seconds.
BROKER_TIMEOUT = 2.0
#: How long a stream waits while other streams take all the room for missed events, in seconds. Then the
#: stream is closed, and its client tries again later.
LONGEST_WAIT = 30.0

_NO_ANSWER = "the broker does not answer; the stream begins as soon as it does"
_SHORT_NO_ANSWER = "the broker does not answer; ask again later"
_BUSY = "this worker sends missed events to many clients; the stream goes on as soon as there is room"


class BrokerWait:
    """How long one stream has waited for missed events, and what its client has been told.

    :param poll: `Stream.poll` of the stream.
    """

    def __init__(self, settings: Settings, poll: float | None = None) -> None:
        self._heartbeat = settings.heartbeat
        self._poll = math.inf if poll is None else poll
        self.ended()

    def ended(self) -> None:
        """Notes that missed events have come."""
        self._began = time.monotonic()
        self._told_at: float | None = None

    def is_too_long(self, recovery: Recovery) -> bool:
        """Whether the stream should be closed because it still has no room for its missed events."""
        return recovery.waits_for_room and time.monotonic() - self._began > LONGEST_WAIT

    def is_over(self) -> bool:
        """Whether a short stream should end: its client knows that no events come, and its time is over."""
        return self._told_at is not None and time.monotonic() - self._began >= self._poll

    def frames(self, recovery: Recovery) -> bytes:
        """Returns what the client gets now: an `sse.error` or a comment; b"" if it is not time for either."""
        now = time.monotonic()
        if self._told_at is None:
            if now - self._began < BROKER_TIMEOUT:
                return b""
            self._told_at = now
            no_answer = _NO_ANSWER if self._poll == math.inf else _SHORT_NO_ANSWER
            text = _BUSY if recovery.waits_for_room else no_answer
            return error_frame(ErrorCode.SERVICE_UNAVAILABLE, text)
        if now - self._told_at < self._heartbeat:
            return b""
        self._told_at = now
        return comment("waiting for the broker")
