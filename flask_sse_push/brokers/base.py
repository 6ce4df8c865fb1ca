"""What a broker is: it keeps the recent events of every channel and tells every worker of new ones.

A Broker is used from any thread. A Link is one worker's ear: it has one owner, which alone reads it.
The pieces that need no server are here as functions, so that both brokers share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from ..protocol.cursor import Cursor, Lineage
from ..protocol.entry import Entry, Publication
from ..protocol.shard_cursor import ANY_CHANNELS, ShardCursor, StreamCursor
from .counts import Counts

#: The `inbox` of calls by whoever has no link: the echo goes to nobody.
NO_INBOX = "nobody"


class ChannelHistory(NamedTuple):
    """A channel's history after some position: `entries` is all there was after `start`.

    `start` above the position that was asked for means that what lay between is gone.
    """

    start: int
    entries: list[Entry]
    head: int  # id of the channel's newest event on record, 0 when there is none


class History(NamedTuple):
    """The answer to one history call: the state of several channels at one moment, position `last`."""

    epoch: str
    last: int
    channels: dict[str, ChannelHistory]
    lineage: Lineage = {}


def channel_history(after: int, entries: list[Entry], head: int, horizon: int) -> ChannelHistory:
    """How far back `entries` are complete, for a reader that asked for what came after `after`.

    :param entries: the end of the channel's list; all of it, or from an entry at or before `after` on.
    :param head: id of the newest event ever on record; 0 when the record holds none.
    :param horizon: channels without a head had no event after this position.
    """
    if not entries:
        return ChannelHistory(max(after, head or horizon), [], head)
    newest, oldest = entries[-1].id, entries[0]
    start = after if oldest.id <= after else max(after, abs(oldest.prev))
    if newest != head:  # the list was cut from outside: what its end says is not to be trusted
        start = max(start, head)
    for older, newer in pairwise(entries):
        if newer.prev > older.id:  # so was its middle
            start = max(start, newer.prev)
    return ChannelHistory(start, [entry for entry in entries if entry.id > start], head)


class LiveEvent(NamedTuple):
    """A live event of one channel, not parsed yet."""

    channel: str
    stored: bytes


class Subscribed(NamedTuple):
    """The broker confirmed a subscription: from here on live events of `channel` arrive.

    When it comes unasked, the link was renewed and events may be missing.
    """

    channel: str


class Echo(NamedTuple):
    """A probe came back: everything up to `last` that this link could hear was heard before it."""

    epoch: str
    last: int


LinkMessage = LiveEvent | Subscribed | Echo


class Link(ABC):
    """One worker's live connection to the broker, owned by one thread."""

    @abstractmethod
    def subscribe(self, channels: Sequence[str]) -> None:
        """Asks for live events; a Joined for each follows. Raises BrokerUnavailable."""

    @abstractmethod
    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Ends live events of `channels`. Raises BrokerUnavailable."""

    @abstractmethod
    def read(self, timeout: float) -> list[LinkMessage]:
        """Everything that has arrived, in order; waits up to `timeout` seconds for the first.

        Returns at once, perhaps with nothing, after `Broker.wake`. Raises BrokerUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the link; may be called twice."""


@dataclass(frozen=True)
class Bounds:
    """How much history a broker keeps of each channel."""

    size: int
    ttl: float  # seconds


class Broker(ABC):
    """Keeps and announces events. Any thread may call; each call blocks at most `timeout` seconds."""

    #: Who holds what, over all workers.
    counts: Counts
    #: redis-py's connections, for libraries that keep something of theirs beside the events; None in memory.
    pool: Any = None
    #: Begins every key of such a library.
    base = ""

    @property
    def shards(self) -> Sequence[Broker]:
        """The brokers that the channels lie on, each with an order of its own."""
        return (self,)

    @abstractmethod
    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        """Stores and announces all `publications` in one atomic step, in order; returns their cursors.

        :param once: an idempotency id: a second call with the same one stores nothing and returns what
            the first one did.
        :raises BrokerUnavailable: stored zero or one times; with `once` it is safe to call again.
        """

    @abstractmethod
    def history(self, after: Mapping[str, int], inbox: str) -> History:
        """Events of several channels after one position each, read at one moment.

        That moment takes a position of its own, `last`, and is announced to the link `inbox` as an Echo.

        :raises BrokerUnavailable: when the broker does not answer in time.
        """

    def probe(self, inbox: str) -> Cursor:
        """The position of this moment, announced to the link `inbox` as an Echo."""
        snapshot = self.history({}, inbox)
        return Cursor(snapshot.epoch, snapshot.last)

    def inspect(self) -> dict[str, Any]:
        """What the broker tells of itself, under Redis' own names: fields of INFO, settings of CONFIG GET,
        and `time` in seconds since the epoch. What it does not tell is left out.

        :raises BrokerUnavailable: when the broker does not answer in time.
        """
        return {}

    @abstractmethod
    def heads(self, most: int) -> dict[str, int]:
        """Channels that have a history, the newest at most `most`, and the id of each one's newest event.

        :raises BrokerUnavailable: when the broker does not answer in time.
        """

    @abstractmethod
    def link(self, inbox: str) -> Link:
        """A new link named `inbox`, already listening for its own echoes. Raises BrokerUnavailable."""

    @abstractmethod
    def claim(self, name: str, seconds: float) -> bool:
        """Takes `name` for some seconds; True for the first who asks, False for all others meanwhile.

        :raises BrokerUnavailable: it may be taken or not.
        """

    @abstractmethod
    def wake(self, inbox: str) -> None:
        """Makes a waiting `Link.read` of `inbox` return; never raises."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of every connection; may be called twice."""


def probe_all(broker: Broker, inbox: str) -> StreamCursor:
    """The position of this moment on all shards of a broker; see `Broker.probe`."""
    cursors = [shard.probe(inbox) for shard in broker.shards]
    return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))
