"""The contract of a broker: it keeps the recent events of every channel and sends new ones to all workers.

Any thread may use a Broker. A Link belongs to one thread, which reads it. The functions here need no server,
so all brokers share them.
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

#: The `inbox` of a caller without a link: nobody gets the echo.
NO_INBOX = "nobody"


class ChannelHistory(NamedTuple):
    """A channel's history after some position: `entries` holds every event after `start`.

    When `start` is above the position in the call, the events between the two are gone.
    """

    start: int
    entries: list[Entry]
    head: int  # id of the channel's newest event on record, 0 when there is none


class History(NamedTuple):
    """The reply to a history call: the state of several channels at one position, `last`."""

    epoch: str
    last: int
    channels: dict[str, ChannelHistory]
    lineage: Lineage = {}


def channel_history(after: int, entries: list[Entry], head: int, horizon: int) -> ChannelHistory:
    """Returns the events after `after`, and how far back they are complete.

    :param entries: the end of the channel's list: all of it, or from an entry at or before `after` on.
    :param head: id of the channel's newest event on record, 0 when there is none.
    :param horizon: channels without a head had no event after this position.
    """
    if not entries:
        return ChannelHistory(max(after, head or horizon), [], head)
    newest, oldest = entries[-1].id, entries[0]
    start = after if oldest.id <= after else max(after, abs(oldest.prev))
    if newest != head:  # another program cut the end off the list
        start = max(start, head)
    for older, newer in pairwise(entries):
        if newer.prev > older.id:  # another program cut entries out of the middle
            start = max(start, newer.prev)
    return ChannelHistory(start, [entry for entry in entries if entry.id > start], head)


class LiveEvent(NamedTuple):
    """A live event of one channel, not parsed yet."""

    channel: str
    stored: bytes


class Subscribed(NamedTuple):
    """The broker confirmed a subscription: from now on live events of `channel` arrive.

    Without a call of `subscribe` before it, the link was renewed, and events may be missing.
    """

    channel: str


class Echo(NamedTuple):
    """A probe came back: this link has delivered every event of its channels up to `last`."""

    epoch: str
    last: int


LinkMessage = LiveEvent | Subscribed | Echo


class Link(ABC):
    """One worker's live connection to the broker, owned by one thread."""

    @abstractmethod
    def subscribe(self, channels: Sequence[str]) -> None:
        """Asks for live events. A `Subscribed` for each channel follows. Raises BrokerUnavailable."""

    @abstractmethod
    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Asks for no more live events of `channels`. Raises BrokerUnavailable."""

    @abstractmethod
    def read(self, timeout: float) -> list[LinkMessage]:
        """All messages that have arrived, in order; waits up to `timeout` seconds for the first.

        After `Broker.wake` it returns at once, perhaps an empty list. Raises BrokerUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the link. May be called twice."""


@dataclass(frozen=True)
class Bounds:
    """How many events a broker keeps of each channel, and for how long."""

    size: int
    ttl: float  # seconds


class Broker(ABC):
    """Keeps and announces events. Any thread may call; each call blocks at most `timeout` seconds."""

    #: How many each worker holds, and the totals over all workers.
    counts: Counts
    #: redis-py's connection pool, for libraries that keep their own keys on the server; None in memory.
    pool: Any = None
    #: Begins every key of such a library, e.g. `{sse:0}:`.
    base = ""

    @property
    def shards(self) -> Sequence[Broker]:
        """The shards that the channels lie on, each a broker with an order of its own."""
        return (self,)

    @abstractmethod
    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        """Stores and announces all `publications` in one atomic step, in order; returns their cursors.

        :param once: an idempotency id: a second call with the same id stores nothing and returns the cursors
            of the first.
        :raises BrokerUnavailable: stored zero or one times; with `once` it is safe to call again.
        """

    @abstractmethod
    def history(self, after: Mapping[str, int], inbox: str) -> History:
        """Reads the events of several channels, after one position for each, in one atomic step.

        The step takes a new position, `last`, and sends an Echo with it to the link `inbox`.

        :raises BrokerUnavailable: when the broker does not reply in time.
        """

    def probe(self, inbox: str) -> Cursor:
        """Takes a new position, sends an Echo with it to the link `inbox`, and returns it.

        :raises BrokerUnavailable: when the broker does not reply in time.
        """
        history = self.history({}, inbox)
        return Cursor(history.epoch, history.last)

    def inspect(self) -> dict[str, Any]:
        """Facts about the server, under Redis's own names: fields of INFO, settings of CONFIG GET, and
        `time` in seconds since 1970. Facts that the server does not give are left out.

        :raises BrokerUnavailable: when the broker does not reply in time.
        """
        return {}

    @abstractmethod
    def heads(self, most: int) -> dict[str, int]:
        """The `most` channels with the newest events, and the id of the newest event of each.

        :raises BrokerUnavailable: when the broker does not reply in time.
        """

    @abstractmethod
    def link(self, inbox: str) -> Link:
        """Opens a link named `inbox`, subscribed to its own echoes. Raises BrokerUnavailable."""

    @abstractmethod
    def claim(self, name: str, seconds: float) -> bool:
        """Takes `name` for some seconds. Returns True to the first caller, and False to others until then.

        :raises BrokerUnavailable: the name may be taken or not.
        """

    @abstractmethod
    def wake(self, inbox: str) -> None:
        """Makes a waiting `Link.read` of the link `inbox` return. Never raises."""

    @abstractmethod
    def close(self) -> None:
        """Closes every connection. May be called twice."""


def probe_all(broker: Broker, inbox: str) -> StreamCursor:
    """Probes every shard of a broker, see `Broker.probe`, and returns their positions as one cursor."""
    cursors = [shard.probe(inbox) for shard in broker.shards]
    return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))
