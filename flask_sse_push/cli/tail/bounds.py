"""What a server may make `flask sse tail` do: how long it waits, and how much of an event it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

#: The shortest and the longest pause before the command connects again, in seconds, whatever the server
#: says.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 3600.0
#: At most this many characters may arrive without the end of an event: a bit more than the highest value of
#: SSE_PUSH_MAX_MESSAGE.
MAX_EVENT = 110_000_000
#: At most this many seconds may pass from one line end to the next, while characters arrive.
MAX_LINE_TIME = 60.0


def within_bounds(pause: float) -> float:
    """Returns a pause before the next attempt to connect, in seconds, that does no harm."""
    return min(max(SHORTEST_PAUSE, pause), LONGEST_PAUSE)


def is_packed_twice(response: httpx.Response) -> bool:
    """Whether the body is compressed several times. A few bytes can then become many gigabytes."""
    return "," in response.headers.get("Content-Encoding", "")


class BoundedText:
    """A response whose text may not go on for ever without the end of an event."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._response = response
        self._size = 0  # how many characters have arrived since the last event

    def note_event(self) -> None:
        """Notes that an event is complete."""
        self._size = 0

    def iter_text(self) -> Iterator[str]:
        """Yields the text of the response as it arrives.

        :raises httpx.RemoteProtocolError: if an event or a line is too long.
        """
        line_began: float | None = None  # None: the last line has ended
        for text in self._response.iter_text():
            self._size += len(text)
            now = time.monotonic()
            if text.endswith(("\r", "\n")):
                line_began = None
            elif line_began is None or "\n" in text or "\r" in text:
                line_began = now
            if self._size > MAX_EVENT:
                raise httpx.RemoteProtocolError(f"an event has more than {MAX_EVENT} characters")
            if line_began is not None and now - line_began > MAX_LINE_TIME:
                raise httpx.RemoteProtocolError(f"a line has no end after {MAX_LINE_TIME:g} s")
            yield text
