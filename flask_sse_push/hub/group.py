"""A group: the streams that get the same bytes. The chunk with an event is made once for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from ..history.channel_cache import ChannelCache
from ..protocol import batch
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.frames import heartbeat_frame
from ..protocol.shard_cursor import StreamCursor
from .batches import BatchQueue
from .compression import SharedWindow, WindowPool
from .stream import Recipients, Stream

if TYPE_CHECKING:
    from ..history.history_cache import HistoryCache
    from ..history.placement import Placement

#: The chunks made in one dispatch, by everything that decides about their bytes. Each with its entries if
#: one of these is not for every stream.
Chunks = dict[Hashable, tuple[bytes, Sequence[Entry]]]

_id, _frame, _exclude = attrgetter("id"), attrgetter("frame"), attrgetter("exclude")


class Group:
    """Streams of one kind with the same channels.

    :param tagged: whether each event names its channels.
    :param window_pool: for compressed streams, where their shared window comes from; else None.
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
        "window",
        "written_at",
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
        self.key: Hashable = None  # its key in the fan-out
        self.recipients = kind.recipients()
        self.window = None if window_pool is None else SharedWindow(self.streams, window_pool)
        self.cursors: Hashable = None  # groups share chunks only if this is equal: it decides about cursors
        self.at: dict[int, int] = {}  # over several shards: for each the id of the newest collected entry
        self.last = 0  # id of the newest collected entry
        self.pending: list[Entry] = []  # entries collected and not sent yet
        self.written_at = 0.0  # monotonic time of the last chunk
        self.events = self.bytes = 0  # what a stream was sent that has been in the group from the start

    def start(self, placement: Placement, last: Mapping[int, int]) -> None:
        """Called once, before the first stream is added.

        :param placement: the shards of the channels.
        :param last: for each of these shards, the position up to which the streams have every event.
        """
        self.placement = placement
        (self.last,) = last.values()

    @property
    def positions(self) -> dict[int, int]:
        """For each of its shards, the id of the newest collected entry."""
        return {self.placement.history_cache.number: self.last}

    def cursor(self) -> StreamCursor:
        """The cursor up to which its streams have every event."""
        return self.placement.history_cache.stream_cursor(self.last)

    def restart(self, history_cache: HistoryCache) -> StreamCursor:
        """Continues in a shard's new epoch. Returns the cursor where that begins."""
        snapshot = history_cache.announced
        self.last = snapshot.base
        return Cursor(snapshot.epoch, snapshot.base)

    # -- its streams --------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[Stream]:
        """Its streams."""
        return self.recipients.streams

    def add(self, stream: Stream) -> None:
        """Adds a stream. It gets the next chunk and all after that."""
        stream.group = self
        stream.subscribed = self.channels  # one tuple for all of them
        stream.events -= self.events
        stream.bytes -= self.bytes
        self._changeable_recipients().add(stream)
        if self.window is not None and stream.compression is not None:
            stream.compression.join(self.window)

    def remove(self, stream: Stream) -> None:
        """Removes a stream."""
        if stream.compression is not None:
            stream.compression.leave()
        self._changeable_recipients().remove(stream)
        stream.events += self.events
        stream.bytes += self.bytes
        stream.group = None

    def _changeable_recipients(self) -> Recipients:
        if self.recipients.shared:
            self.recipients = self.recipients.copy()
        return self.recipients

    # -- what they get ------------------------------------------------------------------------------------

    def collect(self, entry: Entry, cache: ChannelCache) -> bool:
        """Adds an entry to `pending`. Returns True if it is the first one since the group made deliveries.

        An event in several of the group's channels comes once for each, with the same id. Only the first one
        is added.
        """
        if entry.id <= self.last:
            return False
        self.last = entry.id
        self.pending.append(entry)
        return len(self.pending) == 1

    def flush(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        """Makes deliveries of all pending entries.

        :param now: monotonic seconds.
        :param chunks: the chunks of this dispatch. Groups that get the same bytes share one.
        :param notice: frames that go before the entries.
        """
        entries, self.pending = self.pending, []
        self.written_at = now
        ids = tuple(map(_id, entries))
        kind = None if self.window else self.kind  # compressed groups share the text, not the bytes
        key = kind, self.batched, notice, ids, self.channels if self.tagged else None, self.cursors
        known = chunks.get(key)
        if known is None:
            frames = notice + self._frames(entries)
            limited: Sequence[Entry] = entries if any(map(_exclude, entries)) else ()
            known = chunks[key] = (frames if self.window else self.kind.framed(frames)), limited
        chunk, limited = known
        self.events += len(entries)
        if self.window:
            return self._compressed(self.window, chunk, limited, notice, len(entries))
        self.bytes += len(chunk)
        recipients = self.recipients.share()
        return [Delivery(self.kind, recipients, chunk, limited, notice, len(entries), self.batched)]

    #: Makes the deliveries that must go out now, after entries were collected. Parameters as for `flush`.
    deliveries = flush

    def _compressed(
        self, window: SharedWindow, frames: bytes, limited: Sequence[Entry], notice: bytes, events: int
    ) -> list[Delivery]:
        personal = {
            stream: notice + frames_for(stream, limited, batched=self.batched)
            for stream in (self.streams if limited else ())
            if any(stream.is_excluded(entry.exclude) for entry in limited)
        }
        made = [(streams, self.kind.framed(chunk)) for streams, chunk in window.chunks(frames, personal)]
        size = len(max(made, key=lambda pair: len(pair[0]), default=((), b""))[1])  # the most common chunk
        self.bytes += size
        for (stream, *_), chunk in made:
            if stream in personal:
                stream.events -= sum(stream.is_excluded(entry.exclude) for entry in limited)
                stream.bytes += len(chunk) - size
        return [
            Delivery(self.kind, _recipients(self.kind, streams), chunk, (), notice, events, self.batched)
            for streams, chunk in made
        ]

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        if self.tagged:
            return b"".join([entry.tagged(self.channels) for entry in entries])
        return b"".join(map(_frame, entries))


class BatchingGroup(Group):
    """A group whose events wait for a batch.

    :param waits: for each channel, the seconds that its events may wait.
    :param queue: gets a note of each batch that must be sent later.
    """

    __slots__ = ("_collected", "_due", "_queue", "_shortest_wait", "_size", "_waits")

    batched = True

    def __init__(
        self,
        channels: tuple[str, ...],
        kind: type[Stream],
        tagged: bool,
        window_pool: WindowPool | None,
        waits: Mapping[ChannelCache, float],
        queue: BatchQueue,
    ) -> None:
        super().__init__(channels, kind, tagged, window_pool)
        self._waits = waits
        self._queue = queue
        self._collected = False  # whether `collect` was called since the last `deliveries`
        self._shortest_wait = 0.0  # of the entries collected since then
        self._due: float | None = None  # monotonic time at which the pending entries must be sent
        self._size = 0  # bytes of the pending entries

    def collect(self, entry: Entry, cache: ChannelCache) -> bool:
        wait = self._waits[cache]
        first, self._collected = not self._collected, True
        self._shortest_wait = wait if first else min(wait, self._shortest_wait)
        if entry.id > self.last:  # else another channel brought it; in this channel it may wait less
            self.last = entry.id
            self.pending.append(entry)
            self._size += len(entry.frame)
        return first

    def deliveries(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        if self._collected:
            self._collected = False
            due = now + self._shortest_wait
            if self._due is None or due < self._due:
                self._due = due
                self._queue.add(self, due)
        if not self.pending and not notice:
            return []
        full = len(self.pending) >= batch.MAX_EVENTS or self._size >= batch.MAX_BYTES
        if notice or full or (self._due is not None and self._due <= now):
            return self.flush(now, chunks, notice)
        return []

    def flush(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        self._due, self._size = None, 0
        return super().flush(now, chunks, notice)

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        return batch.pack([entry.tagged(self.channels) if self.tagged else entry.frame for entry in entries])


class Delivery(NamedTuple):
    """One chunk, and the streams that were in the group when it was made."""

    kind: type[Stream]
    recipients: Recipients
    chunk: bytes
    limited: Sequence[Entry]  # the entries of the chunk if one of them is not for every stream; else none
    notice: bytes  # the frames at the beginning of the chunk that are no events
    events: int
    batched: bool = False

    def write(self, begin: int, end: int) -> None:
        """Writes to the recipients from index `begin` up to, not including, `end`. A stream does not get the
        events that exclude it."""
        if not self.limited:
            self.recipients.write(self.chunk, begin, end)
            return
        for stream in self.recipients.streams[begin:end]:
            chunk = self.kind.framed(self.notice + frames_for(stream, self.limited, batched=self.batched))
            stream.events -= sum(stream.is_excluded(entry.exclude) for entry in self.limited)
            stream.bytes += len(chunk) - len(self.chunk)
            stream.write(chunk)


def merge_equal(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Merges deliveries of the same chunk into one: many groups have only one stream or two.

    Groups that get the same bytes in one dispatch share one object, so the object's id tells chunks apart.
    """
    equal: dict[Hashable, list[Delivery]] = {}
    for delivery in deliveries:
        equal.setdefault((id(delivery.chunk), delivery.kind, delivery.batched), []).append(delivery)
    return [_merged(first, more) if more else first for first, *more in equal.values()]


def _merged(first: Delivery, more: Sequence[Delivery]) -> Delivery:
    streams = [stream for delivery in (first, *more) for stream in delivery.recipients.streams]
    return first._replace(recipients=_recipients(first.kind, streams))


def _recipients(kind: type[Stream], streams: Iterable[Stream]) -> Recipients:
    return kind.recipients(streams).share()


def frames_for(stream: Stream, entries: Iterable[Entry], *, batched: bool = False) -> bytes:
    """The frames of `entries` for one stream. Instead of an event that excludes it, the stream gets a
    heartbeat, so that its cursor moves on."""
    shown = [(not stream.is_excluded(entry.exclude), entry) for entry in entries]
    if not batched:
        return b"".join([_frame_for(stream, entry) if is_for else _skip(entry) for is_for, entry in shown])
    packed = batch.pack([_frame_for(stream, entry) for is_for, entry in shown if is_for])
    return packed if not shown or shown[-1][0] else packed + _skip(shown[-1][1])


def _frame_for(stream: Stream, entry: Entry) -> bytes:
    return entry.tagged(stream.subscribed) if stream.tagged else entry.frame


def _skip(entry: Entry) -> bytes:
    return heartbeat_frame(entry.cursor)
