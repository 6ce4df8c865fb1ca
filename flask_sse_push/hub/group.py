"""Streams that get the same bytes: an event is put together once for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..history.channel_cache import ChannelCache
from ..protocol import batch
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.frames import heartbeat_frame
from ..protocol.shard_cursor import ShardCursor
from .batches import BatchQueue
from .compression import SharedWindow, WindowPool
from .recipients import Recipients
from .stream import Stream

if TYPE_CHECKING:
    from ..history.history_cache import HistoryCache
    from ..history.placement import Placement

#: Chunks made in one dispatch, by all that is in them; and their entries when some are not for everybody.
Chunks = dict[Hashable, tuple[bytes, Sequence[Entry]]]


class Group:
    """The sinks of one kind that joined one set of channels.

    :param tagged: whether each event names its channels.
    :param windows: for a group of compressed streams, where their shared compressor comes from.
    """

    __slots__ = (
        "at",
        "bytes",
        "channels",
        "cursors",
        "events",
        "key",
        "kind",
        "last",
        "pending",
        "placement",
        "recipients",
        "tagged",
        "touched",
        "window",
    )

    #: Whether its streams get events in batches.
    batched = False

    def __init__(
        self,
        channels: tuple[str, ...],
        kind: type[Stream],
        tagged: bool = False,
        window_pool: WindowPool | None = None,
    ) -> None:
        self.channels = channels
        self.kind = kind
        self.tagged = tagged
        self.key: Hashable = None  # what the hub finds it by
        self.recipients = kind.recipients()
        self.window = None if window_pool is None else SharedWindow(self.streams, window_pool)
        self.cursors: Hashable = None  # groups with other cursors in their frames share no chunk
        self.at: dict[int, int] = {}  # over several shards: for each the id of the newest entry
        self.last = 0  # id of the newest entry put together for the group
        self.pending: list[Entry] = []  # entries of the dispatch under way, and in batches those that wait
        self.touched = 0.0  # monotonic time of the last chunk
        self.events = self.bytes = 0  # what each sink would have been sent, had it always been here

    def begin(self, placement: Placement, last: Mapping[int, int]) -> None:
        """Called once, before the first stream joins.

        :param route: where the channels lie.
        :param last: for each of those shards the position up to which the streams have everything.
        """
        self.placement = placement
        (self.last,) = last.values()

    @property
    def positions(self) -> dict[int, int]:
        """For each of its shards the id of the newest entry put together."""
        return {self.placement.history_cache.number: self.last}

    def told(self) -> Cursor | ShardCursor:
        """How far its streams have provably got everything."""
        return self.placement.history_cache.stream_cursor(self.last)

    def restart(self, history_cache: HistoryCache) -> Cursor | ShardCursor:
        """Goes on from where the knowledge of a new epoch begins; returns the cursor of that."""
        snapshot = history_cache.announced
        self.last = snapshot.base
        return Cursor(snapshot.epoch, snapshot.base)

    @property
    def streams(self) -> list[Stream]:
        """The streams that take part."""
        return self.recipients.streams

    def add(self, stream: Stream) -> None:
        """Lets `sink` take part from the next chunk on."""
        stream.group = self
        stream.subscribed = self.channels  # one tuple for all of them
        stream.events -= self.events
        stream.bytes -= self.bytes
        self._own_recipients().add(stream)
        if self.window is not None and stream.compression is not None:
            stream.compression.join(self.window)

    def remove(self, stream: Stream) -> None:
        """Takes `sink` out."""
        if stream.compression is not None:
            stream.compression.leave()
        self._own_recipients().remove(stream)
        stream.events += self.events
        stream.bytes += self.bytes
        stream.group = None

    def _own_recipients(self) -> Recipients:
        """The audience, to be changed."""
        if self.recipients.lent:
            self.recipients = self.recipients.copy()
        return self.recipients

    def offer(self, entry: Entry, cache: ChannelCache) -> bool:
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
        kind = None if self.window else self.kind  # of compressed streams the text is shared, not the bytes
        key = kind, self.batched, notice, ids, self.channels if self.tagged else None, self.cursors
        known = made.get(key)
        if known is None:
            frames = notice + self._frames(entries)
            limited: Sequence[Entry] = entries if any(entry.exclude for entry in entries) else ()
            known = made[key] = (frames if self.window else self.kind.framed(frames)), limited
        chunk, limited = known
        self.events += len(entries)
        if self.window:
            return self._compressed(self.window, chunk, limited, notice, len(entries))
        self.bytes += len(chunk)
        recipients = self.recipients.lend()
        return [Delivery(self.kind, recipients, chunk, limited, notice, len(entries), self.batched)]

    def _compressed(
        self, window: SharedWindow, frames: bytes, limited: Sequence[Entry], notice: bytes, events: int
    ) -> list[Delivery]:
        personal = {
            stream: notice + frames_for(stream, limited, batched=self.batched)
            for stream in (self.streams if limited else ())
            if any(stream.is_excluded(entry.exclude) for entry in limited)
        }
        made = [(streams, self.kind.framed(chunk)) for streams, chunk in window.chunks(frames, personal)]
        most = max(made, key=lambda each: len(each[0]), default=((), b""))
        size = len(most[1])
        self.bytes += size
        for (stream, *_), chunk in made:
            if stream in personal:
                stream.events -= sum(stream.is_excluded(entry.exclude) for entry in limited)
                stream.bytes += len(chunk) - size
        return [
            Delivery(self.kind, _gathered(self.kind, streams), chunk, (), notice, events, self.batched)
            for streams, chunk in made
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
        kind: type[Stream],
        tagged: bool,
        window_pool: WindowPool | None,
        waits: Mapping[ChannelCache, float],
        waiting: BatchQueue,
    ) -> None:
        super().__init__(channels, kind, tagged, window_pool)
        self._waits = waits
        self._waiting = waiting
        self._offered = False  # whether this dispatch brought something
        self._soonest = 0.0  # the shortest wait of that
        self._due: float | None = None  # monotonic time when what is pending must go
        self._size = 0  # its bytes

    def offer(self, entry: Entry, cache: ChannelCache) -> bool:
        wait = self._waits[cache]
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
        full = len(self.pending) >= batch.MAX_EVENTS or self._size >= batch.MAX_BYTES
        if notice or full or (self._due is not None and self._due <= now):
            return self.flush(now, made, notice)
        return []

    def flush(self, now: float, made: Chunks, notice: bytes = b"") -> list[Delivery]:
        self._due, self._size = None, 0
        return super().flush(now, made, notice)

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        return batch.pack(self._each(entries))


class Delivery(NamedTuple):
    """One chunk on its way to the sinks that were in the group when it was made."""

    kind: type[Stream]
    recipients: Recipients
    chunk: bytes
    limited: Sequence[Entry]  # the entries again, when some are not for everybody
    notice: bytes
    events: int
    batched: bool = False

    def write(self, begin: int, end: int) -> None:
        """Writes the chunk to the sinks from one place of the audience up to another; without the events that
        one is excluded from."""
        if not self.limited:
            self.recipients.write(self.chunk, begin, end)
            return
        for stream in self.recipients.streams[begin:end]:
            chunk = self.kind.framed(self.notice + frames_for(stream, self.limited, batched=self.batched))
            stream.events -= sum(stream.is_excluded(entry.exclude) for entry in self.limited)
            stream.bytes += len(chunk) - len(self.chunk)
            stream.write(chunk)


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
    streams = [stream for delivery in (first, *more) for stream in delivery.recipients.streams]
    return first._replace(recipients=_gathered(first.kind, streams))


def _gathered(kind: type[Stream], streams: Iterable[Stream]) -> Recipients:
    return kind.recipients(streams).lend()


def frames_for(stream: Stream, entries: Iterable[Entry], *, batched: bool = False) -> bytes:
    """The frames of `entries`. One that is not for `sink` becomes a heartbeat: its cursor moves on."""
    shown = [(not stream.is_excluded(entry.exclude), entry) for entry in entries]
    if not batched:
        return b"".join([_frame_for(stream, entry) if is_for else _step(entry) for is_for, entry in shown])
    packed = batch.pack([_frame_for(stream, entry) for is_for, entry in shown if is_for])
    return packed if not shown or shown[-1][0] else packed + _step(shown[-1][1])


def _frame_for(stream: Stream, entry: Entry) -> bytes:
    return entry.tagged(stream.subscribed) if stream.tagged else entry.frame


def _step(entry: Entry) -> bytes:
    return heartbeat_frame(entry.cursor)
