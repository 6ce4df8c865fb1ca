"""The contract of a broker: it keeps the recent events of every channel and sends new ones to all workers.

Any thread may use a Broker. A Link belongs to one thread, which reads messages from the link. The functions
in this module need no server; all brokers use them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from ..protocol.cursor import MAX_ID, Cursor, Lineage
from ..protocol.entry import Entry, Publication
from ..protocol.shard_cursor import ANY_CHANNELS, ShardCursor, StreamCursor
from .counts import Counts

#: What a caller without a link passes as the name of its link. Nobody reads the echo of such a call.
NO_INBOX = "nobody"
#: At most how many entries one call of `Broker.newest` looks at. More entries would keep the broker busy
#: for too long.
MAX_COUNTED = 10_000


#: How long a worker's link reader lets one `Link.read` block, in seconds. Then it checks for silence.
READ_TIMEOUT = 1.0
#: How many bytes an entry counts in the room of a history call, beyond its own bytes: about as many as Python
#: needs to hold a small entry.
ENTRY_COST = 500
#: About how many bytes of messages one `Link.read` returns at most, with ENTRY_COST for each. Other greenlets
#: wait while a gevent worker unpacks these messages, so one read is kept short.
READ_ROOM = 250_000
#: The room of a history call that reads every entry.
UNBOUNDED = MAX_ID


class ChannelHistory(NamedTuple):
    """The history of a channel after a position: `entries` contains every event after `start`.

    If `start` is higher than the position that the caller passed, the events between the two positions are
    gone; or they did not fit into the room of the call, and `is_cut` is True. `earlier` has the entries
    between the two positions that are still there: damaged data follow them, so others may be missing.
    """

    start: int
    entries: list[Entry]
    head: int  # id of the channel's newest event; 0 if the broker knows of no event
    is_cut: bool = False
    earlier: Sequence[Entry] = ()


class History(NamedTuple):
    """What `Broker.history` returns: the histories of several channels at one position, `last`.

    `Broker.page` returns the same, but only with the events up to `until`.
    """

    epoch: str
    last: int
    channels: dict[str, ChannelHistory]
    lineage: Lineage = {}
    until: int = MAX_ID
    clock: int = 0  # the broker's clock, by which events expire, in microseconds; never goes back


def channel_history(
    after: int,
    entries: list[Entry],
    head: int,
    horizon: int,
    unread: int = 0,
    *,
    is_cut: bool = False,
    until: int = MAX_ID,
) -> ChannelHistory:
    """Returns the events of a channel after `after`, and the position after which no event is missing.

    :param entries: entries of the channel's list, in order. If the entry before the first is not at or before
        `after`, either the list has no such entry, or `is_cut` is True.
    :param head: id of the channel's newest event; 0 if the broker knows of no event.
    :param horizon: a position; if `head` is 0, the channel had no event after this position.
    :param unread: a position; entries at or before this position may be missing from `entries`.
    :param is_cut: whether the list has older entries for which the call had no room.
    :param until: the end of a page: later events are left out. If the page has no event of the channel,
        `entries` has the next one, because its `prev` shows whether events before it are gone.
    """
    if not entries:
        if is_cut:
            return ChannelHistory(MAX_ID, [], head, True)
        return ChannelHistory(max(after, head or horizon), [], head)
    newest, oldest = entries[-1].id, entries[0]
    start = after if oldest.id <= after else max(after, abs(oldest.prev))
    is_cut = is_cut and start > after
    if until == MAX_ID and newest != head:  # another program removed entries from the end of the list
        start = max(start, head)
    for older, newer in pairwise(entries):
        if newer.prev > older.id:  # another program removed entries between `older` and `newer`
            start = max(start, newer.prev)
    start = max(start, unread)
    found = [entry for entry in entries if start < entry.id <= until]
    if len(found) == len(entries):
        return ChannelHistory(start, found, head, is_cut)
    earlier = [entry for entry in entries if after < entry.id <= start]
    return ChannelHistory(start, found, head, is_cut, earlier)


class Newest(NamedTuple):
    """What `Broker.newest` returns: the ids that it found, and where the next call must go on."""

    ids: list[int]  # the highest first
    before: int  # the `before` of the next call; 0 if there are no older events


def repeated_id(once: str, stored: int, given: int) -> InvalidEvent:
    """Returns the error for an idempotency id that was used before for another number of events."""
    problem = f"{once!r} was used before for {stored} events, but this call has {given}; use another id"
    return InvalidEvent("id", problem)


class LiveEvent(NamedTuple):
    """A message on the link: a new event of a channel, as the bytes that `Entry.parse` reads.

    `proven` is False if another program has published the message. It is None if the link cannot tell,
    because no reply of the broker has named the epoch of the message yet.
    """

    channel: str
    stored: bytes
    proven: bool | None = True


class Subscribed(NamedTuple):
    """A message on the link: the broker confirmed a subscription; live events of `channel` now arrive.

    If nobody called `subscribe` before this message, the link was renewed, and events may be missing.
    """

    channel: str


class Echo(NamedTuple):
    """A message on the link: the reply to a probe.

    The link has delivered every event of its channels up to `last`.
    """

    epoch: str
    last: int


LinkMessage = LiveEvent | Subscribed | Echo


class Link(ABC):
    """A worker's connection to the broker on which live events arrive. A link belongs to one thread."""

    @abstractmethod
    def subscribe(self, channels: Sequence[str]) -> None:
        """Asks for live events of `channels`. The link then gets a `Subscribed` for each channel.

        :raises BrokerUnavailable: if the connection is broken.
        """

    @abstractmethod
    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Stops the live events of `channels`.

        :raises BrokerUnavailable: if the connection is broken.
        """

    @abstractmethod
    def read(self, timeout: float) -> list[LinkMessage]:
        """Returns messages that have arrived, in order. Waits at most `timeout` seconds for the first.

        The list has messages that fit into `READ_ROOM`; more may have arrived. A call of `Broker.wake` ends
        the wait; the list may then be empty.

        :raises BrokerUnavailable: if the connection is broken.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the link. A second call does nothing."""


class Broker(ABC):
    """Keeps events and announces them to all workers.

    Any thread may call the methods. Each call blocks at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.
    """

    #: The counts of each worker, and their totals over all workers.
    counts: Counts
    #: redis-py's connection pool, for libraries that keep keys of their own on the server; None if there is
    #: no server.
    pool: Any = None
    #: A library that uses `pool` must begin its keys with this prefix, such as `{sse:0}:`.
    base = ""

    @property
    def shards(self) -> Sequence[Broker]:
        """The shards that the channels lie on. Each shard is a broker with an order of its own."""
        return (self,)

    @abstractmethod
    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        """Stores and announces all `publications` in one atomic step, in their order. Returns their cursors.

        :param once: an idempotency id. A second call with the same id stores nothing and returns the cursors
            of the first call, even if its events differ.
        :raises InvalidEvent: if the first call with the same id had another number of events.
        :raises BrokerUnavailable: if the broker does not reply in time. The events are then stored once or
            not at all; with `once` it is safe to call again.
        """

    def publish_each(self, events: Sequence[tuple[Publication, str]]) -> None:
        """Stores and announces several events in order, each in a step of its own. Blocks like one `publish`
        for each, or less.

        :param events: each event with its idempotency id.
        :raises InvalidEvent: if an id was used before for another number of events.
        :raises BrokerUnavailable: if the broker does not reply in time, or refuses one of the events. Each
            event is then stored once or not at all; it is safe to call again.
        """
        for event, once in events:
            self.publish([event], once)

    @abstractmethod
    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> History:
        """Reads the histories of several channels in one atomic step.

        The step also makes a new position, `last`, which is later than every event so far. It sends `last` in
        an Echo to a link.

        :param after: for each channel, the position after which events are read.
        :param inbox: the name of the link that gets the Echo.
        :param room: at most about how many bytes the entries may have together. Each entry counts its own
            bytes and `ENTRY_COST`. If there is no room for all entries of a channel, the reply has none of
            them. If the first channel that has entries needs more room, the reply has its newest ones.
        :raises BrokerUnavailable: if the broker does not reply in time.
        """

    @abstractmethod
    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        """Reads the oldest events after `after`, over all channels together, as far as `room` allows.

        The reply has every event of the channels up to the position `until`. The next page begins there. If
        `until` is `last`, no event follows. Each page with a room above 0 has an event, unless none follows.
        Makes a position and sends an Echo like `history`, and has the same parameters.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """

    @abstractmethod
    def newest(self, channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        """Finds the newest events of several channels together.

        Looks at no more than `MAX_COUNTED` entries, so the caller may have to call again.

        :param count: how many events to find. An event of several channels counts once. An event that is no
            longer replayed does not count.
        :param before: only events with lower ids are found.
        :raises BrokerUnavailable: if the broker does not reply in time.
        """

    def probe(self, inbox: str) -> Cursor:
        """Makes a new position, sends it in an Echo to the link named `inbox`, and returns it.

        The position is later than every event so far.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        history = self.history({}, inbox)
        return Cursor(history.epoch, history.last)

    def inspect(self) -> dict[str, Any]:
        """Returns facts about the server for `flask sse doctor`. Leaves out facts that the server hides.

        The keys are Redis's own names: fields of INFO, settings of CONFIG GET, and `time` in seconds since
        1970.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        return {}

    @abstractmethod
    def heads(self, most: int) -> dict[str, int]:
        """Returns at most `most` channels, those with the newest events, each with its newest event's id.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """

    @abstractmethod
    def link(self, inbox: str) -> Link:
        """Opens a link. The link is named `inbox` and gets the echoes of probes with this name.

        :raises BrokerUnavailable: if the connection fails.
        """

    @abstractmethod
    def claim(self, name: str, seconds: float) -> bool:
        """Claims `name` for some seconds. Returns whether this caller got it: only the first caller does.

        :raises BrokerUnavailable: if the broker does not reply in time. The name is then claimed or not.
        """

    def expect_to_declare(self) -> None:
        """Notes that this process is a worker of the app, which may publish before its first link.

        The worker's policies are those of the app. So `publish` declares them if the broker has older ones.
        """
        return

    def declare(self) -> None:
        """Tells the broker the channel policies of the app, so that a publisher with other policies notices.

        A worker calls this before its first link. Brokers of one process need not know the policies.

        :raises BrokerUnavailable: if the broker does not reply in time.
        """
        return

    @abstractmethod
    def wake(self, inbox: str) -> None:
        """Ends the wait in `Link.read` of the link named `inbox`. Never raises."""

    @abstractmethod
    def close(self) -> None:
        """Closes every connection of the broker. A second call does nothing."""


def probe_all(broker: Broker, inbox: str) -> StreamCursor:
    """Calls `Broker.probe` on every shard of a broker, and returns the positions as one cursor."""
    cursors = [shard.probe(inbox) for shard in broker.shards]
    return cursors[0] if len(cursors) == 1 else ShardCursor(ANY_CHANNELS, tuple(cursors))
