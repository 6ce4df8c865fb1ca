"""What a broker is: it keeps the recent events of every channel and tells every worker of new ones.

A Broker is used from any thread. A Link is one worker's ear: it has one owner, which alone reads it.
The pieces that need no server are here as functions, so that both brokers share them.
"""

from __future__ import annotations

import copy
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from ..cursor import Cursor, Lineage
from ..wire import frame
from .ledger import Ledger

#: Every stream listens to this channel too. Its name is outside the grammar of channel names.
BROADCAST = "*"
#: Shards that a cursor has room for.
MAX_SHARDS = 8


def shard_of(channel: str, count: int) -> int:
    """The shard of a channel among `count`. Channels that are the package's own lie on the first."""
    return 0 if count == 1 or channel.startswith("!") else zlib.crc32(channel.encode()) % count


class Publication(NamedTuple):
    """An event on its way to the broker: its wire body and where it goes."""

    body: bytes
    channels: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    ttl: float | None = None  # seconds; None: as long as the history keeps it
    here: tuple[str, ...] = ()  # those of the channels that lie on this shard; none: all do

    @property
    def lists(self) -> tuple[str, ...]:
        """The channels that the broker stores it for."""
        return self.here or self.channels

    def meta(self) -> str:
        """What a worker must know beside the body, as one word."""
        fields: list[tuple[str, str]] = [("x", name) for name in self.exclude]
        if len(self.channels) > 1:
            fields += [("m", name) for name in self.channels]
        if self.ttl is not None:
            fields.append(("t", str(round(self.ttl * 1_000_000))))
        return urlencode(fields) or "-"


class Entry:
    """An event as the broker keeps it: its place in the order, and its frame ready to send."""

    __slots__ = ("channels", "epoch", "exclude", "expires", "frame", "id", "prev", "shared")

    def __init__(
        self,
        epoch: str,
        id: int,
        prev: int,
        body: bytes,
        exclude: frozenset[str] = frozenset(),
        expires: int = 0,
        shared: bool = False,
        channels: tuple[str, ...] = (),
    ) -> None:
        self.epoch = epoch
        self.id = id
        # The id of the channel's event before this one; with none on record, minus the position after which
        # there was none.
        self.prev = prev
        self.frame = frame(str(Cursor(epoch, id)), body)
        self.exclude = exclude
        self.expires = expires  # position from which on it is no longer replayed; 0: never
        self.shared = shared  # other channels announce the same id too
        self.channels = channels  # all that it was published to

    def is_expired(self, position: int) -> bool:
        """Whether the event is not to be replayed any more at `position`."""
        return 0 < self.expires <= position

    @property
    def position(self) -> Cursor:
        """Its place in the order of its shard."""
        return Cursor(self.epoch, self.id)

    @property
    def cursor(self) -> str:
        """The cursor in its frame."""
        return self.frame[4 : self.frame.index(b"\n")].decode()

    def placed(self, cursor: str) -> Entry:
        """The same event with another cursor in its frame."""
        entry = copy.copy(self)
        entry.frame = frame(cursor, self.frame.partition(b"\n")[2])
        return entry

    def tagged(self, subscribed: Collection[str]) -> bytes:
        """The frame with a field that names those of its channels that a stream listens to."""
        names = ",".join([name for name in self.channels if name in subscribed])
        return b"channel: %b\n%b" % (names.encode(), self.frame)

    @classmethod
    def parse(cls, stored: bytes, channel: str = "") -> Entry:
        """An entry of `channel` from its stored form `<epoch> <id> <prev> <meta>\\n<body>`.

        :raises ValueError: when it is not one.
        """
        head, _, body = stored.partition(b"\n")
        epoch, id, prev, meta = head.decode("ascii").split(" ")
        if meta == "-":
            return cls(epoch, int(id), int(prev), body, channels=(channel,))
        fields = parse_qs(meta, strict_parsing=True)
        expires = int(id) + int(fields["t"][0]) if "t" in fields else 0
        exclude, channels = frozenset(fields.get("x", ())), tuple(fields.get("m", (channel,)))
        return cls(epoch, int(id), int(prev), body, exclude, expires, "m" in fields, channels)


def store(epoch: str, id: int, prev: int, publication: Publication) -> bytes:
    """The stored form of an entry. The publish script writes the same."""
    return f"{epoch} {id} {prev} {publication.meta()}\n".encode() + publication.body


class Past(NamedTuple):
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
    channels: dict[str, Past]
    lineage: Lineage = {}


def past(after: int, entries: list[Entry], head: int, horizon: int) -> Past:
    """How far back `entries` are complete, for a reader that asked for what came after `after`.

    :param entries: the end of the channel's list; all of it, or from an entry at or before `after` on.
    :param head: id of the newest event ever on record; 0 when the record holds none.
    :param horizon: channels without a head had no event after this position.
    """
    if not entries:
        return Past(max(after, head or horizon), [], head)
    newest, oldest = entries[-1].id, entries[0]
    start = after if oldest.id <= after else max(after, abs(oldest.prev))
    if newest != head:  # the list was cut from outside: what its end says is not to be trusted
        start = max(start, head)
    for older, newer in pairwise(entries):
        if newer.prev > older.id:  # so was its middle
            start = max(start, newer.prev)
    return Past(start, [entry for entry in entries if entry.id > start], head)


class Heard(NamedTuple):
    """A live event of one channel, not parsed yet."""

    channel: str
    stored: bytes


class Joined(NamedTuple):
    """The broker confirmed a subscription: from here on live events of `channel` arrive.

    When it comes unasked, the link was renewed and events may be missing.
    """

    channel: str


class Echo(NamedTuple):
    """A probe came back: everything up to `last` that this link could hear was heard before it."""

    epoch: str
    last: int


Signal = Heard | Joined | Echo


class Link(ABC):
    """One worker's live connection to the broker, owned by one thread."""

    @abstractmethod
    def subscribe(self, channels: Sequence[str]) -> None:
        """Asks for live events; a Joined for each follows. Raises BrokerUnavailable."""

    @abstractmethod
    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Ends live events of `channels`. Raises BrokerUnavailable."""

    @abstractmethod
    def read(self, timeout: float) -> list[Signal]:
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
    ledger: Ledger
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
        moment = self.history({}, inbox)
        return Cursor(moment.epoch, moment.last)

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
