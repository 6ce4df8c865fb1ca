"""Positions: where a stream starts, how far a worker has seen, and which events are gone."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..protocol.channel import BROADCAST
from ..protocol.cursor import Cursor, Lineage, belongs
from ..protocol.shard_cursor import StreamCursor


class StartPoint(NamedTuple):
    """Where a client asked to start: after a cursor, with the newest events, or, with neither, live."""

    cursor: str | None = None
    newest: int | None = None


class Snapshot(NamedTuple):
    """How far a worker has seen one shard: it has dispatched every event up to `position`.

    It has dispatched some of the events after that, up to `seen`: an event on several channels is announced
    once for each.
    """

    epoch: str
    position: int
    seen: int
    base: int = 0  # the first position that the worker knows in this epoch
    lineage: Lineage = {}

    def accepts(self, cursor: Cursor) -> bool:
        """Whether `cursor` is valid in this epoch: a failover has not undone the events it stands for."""
        return belongs(cursor, self.epoch, self.lineage)


class Opening(NamedTuple):
    """The content of a stream's `sse.open`: its cursor, and whether the stream misses no event after it."""

    cursor: str
    resumed: bool


class Gap(NamedTuple):
    """Events of one channel that a stream does not get: those after `until`, up to and including `after`."""

    channel: str
    until: int
    after: int


class Reset(NamedTuple):
    """The content of a `sse.reset`. `cursor` is set when the stream lost events of all its channels."""

    channels: list[str]
    reason: str
    cursor: str | None


def reset_of(lost: list[str], channels: Collection[str], reason: str, cursor: StreamCursor | None) -> Reset:
    """The reset that tells a stream of `channels` that it lost events of `lost`.

    Clients do not know the name of the broadcast channel. `*` stands for it, unless all others are named.
    """
    named = [name for name in lost if name != BROADCAST]
    all_named = len(named) == sum(name != BROADCAST for name in channels)
    if BROADCAST in lost and not (named and all_named):
        named.append(BROADCAST)
    return Reset(named, reason, str(cursor) if cursor else None)
