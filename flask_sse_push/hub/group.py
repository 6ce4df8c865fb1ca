"""A group: streams that get the same bytes. A chunk is made once for all streams of a group."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from ..history.channel_cache import ChannelCache
from ..protocol import batch
from ..protocol.cursor import Cursor
from ..protocol.entry import Entry
from ..protocol.frames import heartbeat_frame, reset_frame
from ..protocol.shard_cursor import StreamCursor
from .compression import SharedWindow, WindowPool
from .stream import Recipients, Stream

if TYPE_CHECKING:
    from ..history.history_cache import HistoryCache
    from ..history.placement import Placement

#: The chunks made in one dispatch. The key has all values that the bytes of the chunk depend on. The value is
#: first the chunk; and second all its entries if at least one entry must not go to every stream, else none.
Chunks = dict[Hashable, tuple[bytes, Sequence[Entry]]]

_id, _frame, _exclude = attrgetter("id"), attrgetter("frame"), attrgetter("exclude")


class Group:
    """Streams of one kind with the same channels.

    :param kind: the class of the streams; each transport has its own.
    :param tagged: whether the streams get each event with the names of its channels.
    :param window_pool: decides whether the group gets a compressor; None if the streams are not compressed.
    """

    __slots__ = (
        "at",
        "bytes",
        "channels",
        "cursors",
        "dialect",
        "events",
        "key",
        "kind",
        "last",
        "pending",
        "placement",
        "plain",
        "recipients",
        "tagged",
        "window",
        "written_at",
    )

    #: Whether the streams of the group get their events in batches.
    batched = False

    @property
    def heartbeat_form(self) -> Hashable:
        """Groups with the same form and the same cursor have the same heartbeat."""
        return self.dialect

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
        #: Whether the streams get the frames of entries as they are: see `deliver_to_crowd`.
        self.plain = type(self) is Group and not tagged and window_pool is None
        self.dialect = ""  # how the server writes its own events: the value of `?events=`, or ""
        self.key: Hashable = None  # the group's key in `Fanout.groups`
        self.recipients = kind.recipients()
        self.window = None if window_pool is None else SharedWindow(self.recipients, window_pool)
        # A hash of the channels if they lie on several shards; else None. Cursors contain the hash, so only
        # groups with the same hash share chunks.
        self.cursors: Hashable = None
        # The id of the newest collected entry of each shard. Empty if all channels are on one shard.
        self.at: dict[int, int] = {}
        self.last = 0  # id of the newest collected entry
        self.pending: list[Entry] = []  # entries that were collected but not sent yet
        self.written_at = 0.0  # monotonic time at which the group's last chunk was made
        # How many events and bytes were sent to a stream that has been in the group from the start.
        self.events = self.bytes = 0

    def start(self, placement: Placement, last: Mapping[int, int]) -> None:
        """Sets the position from which the group gets events. Called once, before the first `add`.

        :param placement: the shards that the group's channels lie on.
        :param last: maps each shard's number to the position up to which the streams have every event.
        """
        self.placement = placement
        (self.last,) = last.values()

    @property
    def positions(self) -> dict[int, int]:
        """Maps the number of each shard to the id of the newest collected entry."""
        return {self.placement.history_cache.number: self.last}

    def cursor(self) -> StreamCursor:
        """The cursor up to which the streams of the group have every event."""
        return self.placement.history_cache.stream_cursor(self.last)

    def restart(self, history_cache: HistoryCache) -> StreamCursor:
        """Replaces the position in a shard that lost its data. Returns the group's new cursor."""
        snapshot = history_cache.announced
        self.last = snapshot.base
        return Cursor(snapshot.epoch, snapshot.base)

    def heartbeat(self) -> bytes:
        """Returns the frame of a heartbeat, with the group's cursor."""
        return heartbeat_frame(self.cursor(), dialect=self.dialect)

    def reset_notice(self, channels: Sequence[str], reason: str, cursor: str | None) -> bytes:
        """Returns what tells the streams that events of some channels are gone; see `Reset`."""
        return reset_frame(channels, reason, cursor, self.dialect)

    # -- the streams of the group ------------------------------------------------------------------------

    @property
    def streams(self) -> list[Stream]:
        """The streams of the group."""
        return self.recipients.streams

    def add(self, stream: Stream) -> None:
        """Adds a stream. The stream gets the next chunk and all later chunks."""
        stream.group = self
        stream.subscribed = self.channels  # all streams of the group share one tuple
        stream.events -= self.events
        stream.bytes -= self.bytes
        self._changeable_recipients().add(stream)
        if self.window is not None and stream.compression is not None:
            stream.compression.join(self.window)

    def remove(self, stream: Stream) -> None:
        """Removes a stream from the group."""
        if stream.compression is not None:
            stream.compression.leave()
        self._changeable_recipients().remove(stream)
        stream.events += self.events
        stream.bytes += self.bytes
        stream.group = None

    def _changeable_recipients(self) -> Recipients:
        if self.recipients.shared:
            self.recipients = self.recipients.copy()
            if self.window is not None:
                self.window.recipients = self.recipients
        return self.recipients

    # -- from entries to chunks --------------------------------------------------------------------------

    def collect(self, entry: Entry, cache: ChannelCache) -> bool:
        """Adds an entry to `pending`. Returns True if it is the first entry since the last deliveries.

        An event on several channels of the group arrives once for each channel, always with the same id. Only
        the first arrival is added.

        :param cache: the cache of the channel on which the entry arrived.
        """
        if entry.id <= self.last:
            return False
        self.last = entry.id
        self.pending.append(entry)
        return len(self.pending) == 1

    def flush(self, now: float, chunks: Chunks, notice: bytes = b"") -> list[Delivery]:
        """Makes the deliveries of all pending entries.

        :param now: monotonic seconds.
        :param chunks: the chunks of this dispatch so far. Groups that get the same bytes share one chunk.
        :param notice: frames to send before the entries.
        """
        entries, self.pending = self.pending, []
        self.written_at = now
        ids = tuple(map(_id, entries))
        kind = None if self.window else self.kind  # compressed groups share text, but not compressed bytes
        key = kind, self.batched, notice, ids, self.channels if self.tagged else None, self.cursors
        known = chunks.get(key)
        if known is None:
            frames = notice + self._frames(entries)
            limited: Sequence[Entry] = entries if any(map(_exclude, entries)) else ()
            known = chunks[key] = (frames if self.window else self.kind.framed(frames)), limited
        chunk, limited = known
        self.events += len(entries)
        if self.window:
            return self._compressed(self.window, chunk, limited, notice, entries)
        self.bytes += len(chunk)
        recipients = self.recipients.share()
        return [Delivery(self.kind, recipients, chunk, limited, notice, entries, self.batched)]

    #: Makes the deliveries that must be sent now, after entries were collected. Same parameters as `flush`.
    deliveries = flush

    def _compressed(
        self,
        window: SharedWindow,
        frames: bytes,
        limited: Sequence[Entry],
        notice: bytes,
        entries: Sequence[Entry],
    ) -> list[Delivery]:
        personal = {
            stream: notice + frames_for(stream, limited, batched=self.batched)
            for stream in (self.streams if limited else ())
            if any(stream.is_excluded(entry.exclude) for entry in limited)
        }
        made = [(those, self.kind.framed(chunk)) for those, chunk in window.chunks(frames, personal)]
        # The size of the chunk that most streams get.
        size = max([(len(those.streams), len(chunk)) for those, chunk in made], default=(0, 0))[1]
        self.bytes += size
        for those, chunk in made if personal else ():
            stream = those.streams[0]
            if stream in personal:
                stream.events -= sum(stream.is_excluded(entry.exclude) for entry in limited)
                stream.bytes += len(chunk) - size
        return [Delivery(self.kind, those, chunk, (), notice, entries, self.batched) for those, chunk in made]

    def _frames(self, entries: Sequence[Entry]) -> bytes:
        if self.tagged:
            return b"".join([entry.tagged(self.channels) for entry in entries])
        return b"".join(map(_frame, entries))


class Delivery(NamedTuple):
    """One chunk, and the streams that were in the group when the chunk was made."""

    kind: type[Stream]
    recipients: Recipients
    chunk: bytes
    limited: Sequence[Entry]  # the entries of the chunk if any of them excludes some streams; else empty
    notice: bytes  # frames before the first event of the chunk, such as `sse.reset`
    entries: Sequence[Entry]  # the events of the chunk
    batched: bool = False
    is_last: bool = False  # whether the streams end with this chunk, which is then not framed

    @property
    def is_alike(self) -> bool:
        """Whether there are recipients, all of them get the chunk, and their streams go on after it."""
        return not self.limited and not self.is_last and bool(self.recipients.streams)

    def write(self, begin: int, end: int) -> None:
        """Writes the chunk to the recipients from index `begin` up to, not including, `end`.

        A stream does not get events that exclude the stream.
        """
        if self.is_last:
            for stream in self.recipients.streams[begin:end]:
                stream.complete(self.chunk)
            return
        if not self.limited:
            self.recipients.write(self.chunk, begin, end)
            return
        for stream in self.recipients.streams[begin:end]:
            chunk = self.kind.framed(self.notice + frames_for(stream, self.limited, batched=self.batched))
            stream.events -= sum(stream.is_excluded(entry.exclude) for entry in self.limited)
            stream.bytes += len(chunk) - len(self.chunk)
            stream.write(chunk)


def merge_equal(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Merges deliveries of the same chunk into one delivery. This saves time if many groups are small.

    Groups that get the same bytes in one dispatch share one `bytes` object, so `id` tells chunks apart.
    """
    equal: dict[Hashable, list[Delivery]] = {}
    for delivery in deliveries:
        equal.setdefault((id(delivery.chunk), delivery.kind, delivery.batched), []).append(delivery)
    return [_merged(first, more) if more else first for first, *more in equal.values()]


def _merged(first: Delivery, more: Sequence[Delivery]) -> Delivery:
    streams = [stream for delivery in (first, *more) for stream in delivery.recipients.streams]
    return first._replace(recipients=recipients_of(first.kind, streams))


def recipients_of(kind: type[Stream], streams: Iterable[Stream]) -> Recipients:
    """Returns a list of streams of one kind, for a delivery."""
    return kind.recipients(streams).share()


def frames_for(stream: Stream, entries: Iterable[Entry], *, batched: bool = False) -> bytes:
    """The frames of `entries` for one stream.

    Instead of an event that excludes the stream, the frames contain a heartbeat, so that the cursor of the
    stream moves on.

    :param batched: whether the stream gets its events in batches.
    """
    shown = [(not stream.is_excluded(entry.exclude), entry) for entry in entries]
    if not batched:
        return b"".join(
            [_frame_for(stream, entry) if is_for else _skip(stream, entry) for is_for, entry in shown]
        )
    packed = batch.pack([_frame_for(stream, entry) for is_for, entry in shown if is_for])
    return packed if not shown or shown[-1][0] else packed + _skip(stream, shown[-1][1])


def _frame_for(stream: Stream, entry: Entry) -> bytes:
    return entry.tagged(stream.subscribed) if stream.tagged else entry.frame


def _skip(stream: Stream, entry: Entry) -> bytes:
    return heartbeat_frame(entry.cursor, dialect=stream.dialect)
