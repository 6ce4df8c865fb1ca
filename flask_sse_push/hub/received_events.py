"""A record of the events that a stream received on channels which it joined or left while it was open."""

from __future__ import annotations

from ..history.position import Gap
from ..protocol.entry import Entry
from .stream import Stream

#: At most how many ranges of received events are kept for each stream; the oldest ranges are dropped first.
MAX_RANGES = 100


class ReceivedEvents:
    """The exceptions to the rule that a stream received every event of its channels after `Stream.began`.

    The exceptions are channels that the stream joined later or has left, and events that it did not get.
    """

    __slots__ = ("_ranges", "joined")

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}  # by channel: the position after which the stream received events
        #: Received events, as (channel, after, until). A tuple, because most streams have no ranges.
        self._ranges: tuple[tuple[str, int, int], ...] = ()

    def leave(self, name: str, began: int, until: int) -> None:
        """Notes that the stream left a channel after it had received the channel's events up to `until`.

        :param began: the stream's `began`.
        """
        self._add_range(name, self.joined.pop(name, began), until)

    def skip(self, gap: Gap, began: int) -> None:
        """Notes that the stream did not receive the events in the gap.

        :param began: the stream's `began`.
        """
        since = self.joined.get(gap.channel, began)
        if gap.until > since:
            self._add_range(gap.channel, since, gap.until)
        self.joined[gap.channel] = gap.after

    def _add_range(self, name: str, after: int, until: int) -> None:
        self._ranges = (*self._ranges, (name, after, until))[-MAX_RANGES:]

    def has(self, entry: Entry, stream: Stream) -> bool:
        """Whether the stream received the event on one of the event's channels."""
        for name in entry.channels:
            if name in stream.subscribed and entry.id > self.joined.get(name, stream.began):
                return True
        return any(
            name in entry.channels and after < entry.id <= until for name, after, until in self._ranges
        )
