"""Which events a stream has received on channels that it joined after it opened, or has left. Pure."""

from __future__ import annotations

from ..history.position import Gap
from ..protocol.entry import Entry
from .stream import Stream

#: Ranges of events on former channels that are remembered for each stream.
MAX_RANGES = 100


class ReceivedEvents:
    """The events that a stream received, as far as its position alone does not tell.

    A stream has received every event of a channel after `Stream.began`, unless this says otherwise.
    """

    __slots__ = ("_ranges", "joined")

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}  # channel: the position after which the stream has its events
        self._ranges: tuple[tuple[str, int, int], ...] = ()  # channel, after, until; most streams have none

    def leave(self, name: str, began: int, until: int) -> None:
        """Notes that the stream received the channel's events up to `until` and then left it."""
        self._add_range(name, self.joined.pop(name, began), until)

    def skip(self, gap: Gap, began: int) -> None:
        """Notes that the stream did not receive the events in the gap."""
        since = self.joined.get(gap.channel, began)
        if gap.until > since:
            self._add_range(gap.channel, since, gap.until)
        self.joined[gap.channel] = gap.after

    def _add_range(self, name: str, after: int, until: int) -> None:
        self._ranges = (*self._ranges, (name, after, until))[-MAX_RANGES:]

    def has(self, entry: Entry, stream: Stream) -> bool:
        """Whether the stream received the event, on any of its channels."""
        for name in entry.channels:
            if name in stream.subscribed and entry.id > self.joined.get(name, stream.began):
                return True
        return any(
            name in entry.channels and after < entry.id <= until for name, after, until in self._ranges
        )
