"""Where a stream begins, how far a worker has seen, and what is gone."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..protocol.channel import BROADCAST
from ..protocol.cursor import Cursor, Lineage, belongs
from ..protocol.shard_cursor import StreamCursor


class StartPoint(NamedTuple):
    """Where a client asked to begin: after a cursor, with the newest events, or, with neither, live."""

    cursor: str | None = None
    newest: int | None = None


class Snapshot(NamedTuple):
    """Where the worker stands: up to `position` nothing is missing, up to `seen` some events are here."""

    epoch: str
    position: int
    seen: int
    base: int = 0  # where the worker's knowledge of the epoch begins
    lineage: Lineage = {}

    def leases(self, cursor: Cursor) -> bool:
        """Whether `cursor` counts in this epoch: not one that a failover left behind."""
        return belongs(cursor, self.epoch, self.lineage)


class Opening(NamedTuple):
    """How a stream begins: the cursor of its `sse.open`, and whether nothing was missed."""

    cursor: str
    resumed: bool


class Gap(NamedTuple):
    """A channel of which a stream got nothing after `until` and up to `after`."""

    channel: str
    until: int
    after: int


class Reset(NamedTuple):
    """Channels whose missed events are gone. `cursor` is set when that is all there is to say."""

    channels: list[str]
    reason: str
    cursor: str | None


def reset_of(lost: list[str], channels: Collection[str], reason: str, cursor: StreamCursor | None) -> Reset:
    """A reset as clients read it. Broadcasts have no channel name; `*` stands for them when need be."""
    named = [name for name in lost if name != BROADCAST]
    all_named = len(named) == sum(name != BROADCAST for name in channels)
    if BROADCAST in lost and not (named and all_named):
        named.append(BROADCAST)
    return Reset(named, reason, str(cursor) if cursor else None)
