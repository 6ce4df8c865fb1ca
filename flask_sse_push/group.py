"""Streams that get the same bytes: an event is put together once for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import batching
from .audience import Audience
from .brokers.base import Entry
from .cursor import Cursor
from .http_encoding import Cohort, Windows
from .replica import Replica
from .sink import Sink
from .vector import Vector
from .wire import control

if TYPE_CHECKING:
    from .shards import Route, Shard

#: Chunks made in one dispatch, by all that is in them; and their entries when some are not for everybody.
Chunks = dict[Hashable, tuple[bytes, Sequence[Entry]]]


class Group:
    """The sinks of one kind that joined one set of channels.

    :param tagged: whether each event names its channels.
    :param windows: for a group of compressed streams, where their shared compressor comes from.
    """

    __slots__ = (
        "at",
        "audience",
        "bytes",
        "channels",
        "cohort",
        "cursors",
        "events",
        "key",
        "kind",
        "last",
        "pending",
        "route",
        "tagged",
        "touched",
    )

    #: Whether its streams get events in batches.
    batched = False

    def __init__(
        self,
        channels: tuple[str, ...],
        kind: type[Sink],
        tagged: bool = False,
        windows: Windows | None = None,
    ) -> None:
        self.channels = channels
        self.kind = kind
        self.tagged = tagged
        self.key: Hashable = None  # what the hub finds it by
        self.audience = kind.audience()
        self.cohort = None if windows is None else Cohort(self.sinks, windows)
        self.cursors: Hashable = None  # groups with other cursors in their frames share no chunk
        self.at: dict[int, int] = {}  # over several shards: for each the id of the newest entry
        self.last = 0  # id of the newest entry put together for the group
        self.pending: list[Entry] = []  # entries of the dispatch under way, and in batches those that wait
        self.touched = 0.0  # monotonic time of the last chunk
        self.events = self.bytes = 0  # what each sink would have been sent, had it always been here

    def begin(self, route: Route, last: Mapping[int, int]) -> None:
        """Called once, before the first stream joins.

        :param route: where the channels lie.
        :param last: for each of those shards the position up to which the streams have everything.
        """
        self.route = route
        (self.last,) = last.values()

    @property
    def positions(self) -> dict[int, int]:
        """For each of its shards the id of the newest entry put together."""
        return {self.route.only.number: self.last}

    def told(self) -> Cursor | Vector:
        """How far its streams have provably got everything."""
        return self.route.only.told(self.last)

    def restart(self, shard: Shard) -> Cursor | Vector:
        """Goes on from where the knowledge of a new epoch begins; returns the cursor of that."""
        moment = shard.timeline.moment()
        self.last = moment.base
        return Cursor(moment.epoch, moment.base)

    @property
    def sinks(self) -> list[Sink]:
        """The streams that take part."""
        return self.audience.sinks

    def add(self, sink: Sink) -> None:
        """Lets `sink` take part from the next chunk on."""
        sink.group = self
        sink.subscribed = self.channels  # one tuple for all of them
        sink.events -= self.events
        sink.bytes -= self.bytes
        self._own_audience().add(sink)
        if self.cohort is not None and sink.coding is not None:
            sink.coding.join(self.cohort)

    def remove(self, sink: Sink) -> None:
        """Takes `sink` out."""
        if sink.coding is not None:
            sink.coding.leave()
        self._own_audience().remove(sink)
        sink.events += self.events
        sink.bytes += self.bytes
        sink.group = None

    def _own_audience(self) -> Audience:
        """The audience, to be changed."""
        if self.audience.lent:
            self.audience = self.audience.copy()
        return self.audience

    def offer(self, entry: Entry, replica: Replica) -> bool:
        """Notes an entry for the chunk being made; returns whether it is the first one.

        An event in several of the group's channels comes once for each, with the same id: one is kept.
        """
        if entry.id <= self.last:
            return False
        self.last = entry.id
        self.pending.append(entry)
        return len(self.pending) == 1

    def deliveries(self, now: float, made: Chunks, notice: bytes = b"") -> list[Delivery]:
        """What is to go out after a dispatch; `notice` goes first."""
        return self.flush(now, made, notice)

    def flush(self, now: float, made: Chunks, notice: bytes = b"") -> list[Delivery]:
        """What is pending, as one chunk for the sinks of this moment; `notice` goes first.

        :param made: chunks of this dispatch: groups that get the same events share one.
        """
        entries, self.pending = self.pending, []
        self.touched = now
        ids = tuple([entry.id for entry in entries])
        kind = None if self.cohort else self.kind  # of compressed streams the text is shared, not the bytes
        key = kind, self.batched, notice, ids, self.channels if self.tagged else None, self.cursors
        known = made.get(key)
        if known is None:
            frames = notice + self._frames(entries)
            limited: Sequence[Entry] = entries if any(entry.exclude for entry in entries) else ()
            known = made[key] = (frames if self.cohort else self.kind.framed(frames)), limited
        chunk, limited = known
        self.events += len(entries)
        if self.cohort:
            return self._compressed(self.cohort, chunk, limited, notice, len(entries))
        self.bytes += len(chunk)
        audience = self.audience.lend()
        return [Delivery(self.kind, audience, chunk, limited, notice, len(entries), self.batched)]

    def _compressed(
        self, cohort: Cohort, frames: bytes, limited: Sequence[Entry], notice: bytes, events: int
    ) -> list[Delivery]:
        personal = {
            sink: notice + frames_for(sink, limited, batched=self.batched)
            for sink in (self.sinks if limited else ())
            if any(sink.is_excluded(entry.exclude) for entry in limited)
        }
        made = [(sinks, self.kind.framed(chunk)) for sinks, chunk in cohort.chunks(frames, personal)]
        most = max(made, key=lambda each: len(each[0]), default=((), b""))
        size = len(most[1])
        self.bytes += size
        for (sink, *_), chunk in made:
            if sink in personal:
                sink.events -= sum(sink.is_excluded(entry.exclude) for entry in limited)
                sink.bytes += len(chunk) - size
        return [
            Delivery(self.kind, _gathered(self.kind, sinks), chunk, (), notice, events, self.batched)
            for sinks, chunk in made
        ]

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        return b"".join(self._each(entries))

    def _each(self, entries: Sequence[Entry]) -> list[bytes]:
        if self.tagged:
            return [entry.tagged(self.channels) for entry in entries]
        return [entry.frame for entry in entries]


class BatchingGroup(Group):
    """A group whose events wait for others.

    :param waits: seconds that the events of each channel may wait.
    :param waiting: is told when something in the group is due.
    """

    __slots__ = ("_due", "_offered", "_size", "_soonest", "_waiting", "_waits")

    batched = True

    def __init__(
        self,
        channels: tuple[str, ...],
        kind: type[Sink],
        tagged: bool,
        windows: Windows | None,
        waits: Mapping[Replica, float],
        waiting: batching.Waiting,
    ) -> None:
        super().__init__(channels, kind, tagged, windows)
        self._waits = waits
        self._waiting = waiting
        self._offered = False  # whether this dispatch brought something
        self._soonest = 0.0  # the shortest wait of that
        self._due: float | None = None  # monotonic time when what is pending must go
        self._size = 0  # its bytes

    def offer(self, entry: Entry, replica: Replica) -> bool:
        wait = self._waits[replica]
        first, self._offered = not self._offered, True
        self._soonest = wait if first else min(wait, self._soonest)
        if entry.id > self.last:  # else another channel brought it, but this one may be in more of a hurry
            self.last = entry.id
            self.pending.append(entry)
            self._size += len(entry.frame)
        return first

    def deliveries(self, now: float, made: Chunks, notice: bytes = b"") -> list[Delivery]:
        if self._offered:
            self._offered = False
            due = now + self._soonest
            if self._due is None or due < self._due:
                self._due = due
                self._waiting.add(self, due)
        if not self.pending and not notice:
            return []
        full = len(self.pending) >= batching.MAX_EVENTS or self._size >= batching.MAX_BYTES
        if notice or full or (self._due is not None and self._due <= now):
            return self.flush(now, made, notice)
        return []

    def flush(self, now: float, made: Chunks, notice: bytes = b"") -> list[Delivery]:
        self._due, self._size = None, 0
        return super().flush(now, made, notice)

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        return batching.pack(self._each(entries))


class Delivery(NamedTuple):
    """One chunk on its way to the sinks that were in the group when it was made."""

    kind: type[Sink]
    audience: Audience
    chunk: bytes
    limited: Sequence[Entry]  # the entries again, when some are not for everybody
    notice: bytes
    events: int
    batched: bool = False

    def write(self, begin: int, end: int) -> None:
        """Writes the chunk to the sinks from one place of the audience up to another; without the events that
        one is excluded from."""
        if not self.limited:
            self.audience.write(self.chunk, begin, end)
            return
        for sink in self.audience.sinks[begin:end]:
            chunk = self.kind.framed(self.notice + frames_for(sink, self.limited, batched=self.batched))
            sink.events -= sum(sink.is_excluded(entry.exclude) for entry in self.limited)
            sink.bytes += len(chunk) - len(self.chunk)
            sink.write(chunk)


def united(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Deliveries of different groups, one for each chunk: the group of a user has a stream or two.

    Chunks are told apart as objects. Those that one dispatch made for the same events are the same one; an
    event alone may be the same for sinks of several kinds.
    """
    alike: dict[Hashable, list[Delivery]] = {}
    for delivery in deliveries:
        alike.setdefault((id(delivery.chunk), delivery.kind, delivery.batched), []).append(delivery)
    return [_joined(first, more) if more else first for first, *more in alike.values()]


def _joined(first: Delivery, more: Sequence[Delivery]) -> Delivery:
    sinks = [sink for delivery in (first, *more) for sink in delivery.audience.sinks]
    return first._replace(audience=_gathered(first.kind, sinks))


def _gathered(kind: type[Sink], sinks: Iterable[Sink]) -> Audience:
    return kind.audience(sinks).lend()


def frames_for(sink: Sink, entries: Iterable[Entry], *, batched: bool = False) -> bytes:
    """The frames of `entries`. One that is not for `sink` becomes a heartbeat: its cursor moves on."""
    shown = [(not sink.is_excluded(entry.exclude), entry) for entry in entries]
    if not batched:
        return b"".join([_frame_for(sink, entry) if is_for else _step(entry) for is_for, entry in shown])
    packed = batching.pack([_frame_for(sink, entry) for is_for, entry in shown if is_for])
    return packed if not shown or shown[-1][0] else packed + _step(shown[-1][1])


def _frame_for(sink: Sink, entry: Entry) -> bytes:
    return entry.tagged(sink.subscribed) if sink.tagged else entry.frame


def _step(entry: Entry) -> bytes:
    return heartbeat(entry.cursor)


def heartbeat(cursor: Cursor | Vector | str) -> bytes:
    """An event, not a comment: page script sees it, and Firefox takes an id only with data."""
    return control("sse.heartbeat", {}, str(cursor))
