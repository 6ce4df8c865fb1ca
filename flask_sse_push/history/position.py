"""Values about positions: the start of a stream, the snapshot of a worker, gaps, and resets."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..protocol.channel import BROADCAST
from ..protocol.cursor import Cursor, Lineage, belongs
from ..protocol.shard_cursor import StreamCursor


class StartPoint(NamedTuple):
    """Where a client wants its stream to start.

    The stream starts after `cursor`, or with the `newest` kept events. If both are None, the stream gets
    only new events.
    """

    cursor: str | None = None
    newest: int | None = None
    #: Whether the worker first asks the broker which events it has: the stream may end before the next event.
    asks_broker: bool = False


class Snapshot(NamedTuple):
    """How far a worker has seen a shard: it has dispatched every event up to `position`.

    Of the events after `position`, up to `seen`, the worker may have dispatched only some. The newest event
    may be on several channels. It arrives once for each channel, and some of these arrivals may be missing.
    """

    epoch: str
    position: int
    seen: int
    base: int = 0  # the first position that the worker knows in this epoch
    lineage: Lineage = {}

    def accepts(self, cursor: Cursor) -> bool:
        """Whether `cursor` is valid in this epoch.

        A cursor of an earlier epoch is valid if the broker kept every event up to this cursor, for example in
        a failover.
        """
        return belongs(cursor, self.epoch, self.lineage)


class Opening(NamedTuple):
    """The content of `sse.open`: the stream's cursor.

    `resumed` says whether the stream goes on after the client's cursor without a loss.
    """

    cursor: str
    resumed: bool


class Gap(NamedTuple):
    """Lost events of one channel for a stream: the events after `until`, up to and including `after`."""

    channel: str
    until: int
    after: int


class Reset(NamedTuple):
    """The content of an `sse.reset`. `cursor` is None if only some channels of the stream lost events."""

    channels: list[str]
    reason: str
    cursor: str | None


def reset_of(lost: list[str], channels: Collection[str], reason: str, cursor: StreamCursor | None) -> Reset:
    """Returns the reset for a stream of `channels` that lost events of the channels `lost`.

    The reset names the broadcast channel `*` too, unless it already names all other channels of the stream:
    clients do not see the broadcast channel in their list of channels.
    """
    named = [name for name in lost if name != BROADCAST]
    all_named = len(named) == sum(name != BROADCAST for name in channels)
    if BROADCAST in lost and not (named and all_named):
        named.append(BROADCAST)
    return Reset(named, reason, str(cursor) if cursor else None)
