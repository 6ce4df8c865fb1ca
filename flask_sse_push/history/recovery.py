"""The events that one stream missed on one shard, found in the channel caches. Does no I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from ..protocol.cursor import EARLIEST, LOST, Cursor, parse
from ..protocol.entry import Entry
from .channel_cache import NOW, ChannelCache, Coverage
from .chunk import NO_CHUNK, ChunkCache, MissedChunk
from .joining import Joining
from .page import Page, PageRequest
from .position import Gap, Opening, Reset, Snapshot, StartPoint, reset_of

#: At most how many bytes one chunk of missed events has. The chunk stays in memory until the client reads it.
MAX_CHUNK = 65_536


class MissedEvents:
    """The events that one stream missed, from its start up to the position that the worker has dispatched.

    :param channels: the stream's channels on this shard, the broadcast channel included.
    """

    def __init__(self, channels: tuple[str, ...], start: StartPoint) -> None:
        self.channels = channels
        #: The position up to which the stream has every event; None before the call of `begin`.
        self.position: int | None = None
        #: The gaps found so far. A caller that records gaps removes them from this list.
        self.gaps: list[Gap] = []
        self._start = start
        self._given = parse(start.cursor) if start.cursor else None
        self._wants_kept = start.cursor == EARLIEST or (not start.cursor and bool(start.newest))
        self._epoch = ""
        #: For some channels, a later position than `position`. Earlier events of these channels are not sent.
        self._channel_start: dict[str, int] = {}
        self._probed: threading.Event | None = None
        self._complete_at: Snapshot | None = None  # a snapshot; the stream has every event in it
        #: The request for the page that the stream waits for or sends; None if the stream reads no pages.
        self._asked_page: PageRequest | None = None
        #: Joins missed events into fewer ones; None if each event is sent as it was published.
        self.joining: Joining | None = None
        #: Events up to this position are not joined with later ones.
        self.boundary = 0
        #: Whether the last chunk came from a page, so that more missed events may follow an empty chunk.
        self.is_paging = False

    @property
    def cursor(self) -> Cursor:
        """The stream's position and epoch. Use this property only after `begin`."""
        assert self.position is not None
        return Cursor(self._epoch, self.position)

    @property
    def is_before_all_kept(self) -> bool:
        """Whether the client wants every kept event and has not received any event yet."""
        return self._wants_kept and self.position == 0

    def clock(self, snapshot: Snapshot) -> float:
        """Returns the broker's clock in microseconds, at least the position in `snapshot`."""
        return snapshot.seen

    def has_all_of(self, snapshot: Snapshot) -> bool:
        """Whether the stream has every event in `snapshot`."""
        return (
            snapshot == self._complete_at and self.position is not None and self.position <= snapshot.position
        )

    @property
    def page_has_ended(self) -> bool:
        """Whether the last chunk was the end of a page."""
        return self.is_paging and self._asked_page is None

    @property
    def newest_ids(self) -> list[int]:
        """The ids of the newest events, if the stream reads the newest events in pages."""
        return self._asked_page.ids if self._asked_page is not None else []

    # -- missing history --------------------------------------------------------------------------------

    def needs(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot | None) -> dict[str, int]:
        """Returns the channels whose history must be read, each with the position after which to read it."""
        if self.position is not None:
            continues = snapshot is not None and self._continues(snapshot)
            wanted = {name: self._after(name) if continues else NOW for name in self.channels}
        elif self._wants_kept:
            if snapshot is not None and self._newest_begin(caches, snapshot) is not None:
                return {}
            return {name: 0 for name in self.channels if not caches[name].has_all_kept}
        elif self._given and not (snapshot and self.is_ahead(snapshot)):
            wanted = dict.fromkeys(self.channels, self._given.id)
        else:
            wanted = dict.fromkeys(self.channels, NOW)
        absent = Coverage.ABSENT
        return {name: after for name, after in wanted.items() if caches[name].coverage(after) is absent}

    def page_request(self, needs: Mapping[str, int]) -> PageRequest:
        """Makes the request for the page with the stream's next missed events."""
        if self.position is None and self._wants_kept:
            newest = None if self._start.cursor else self._start.newest
            request = PageRequest(dict.fromkeys(self.channels, 0), newest)
        else:
            request = PageRequest(needs)
        self._asked_page = request
        return request

    def has_page(self, needs: Mapping[str, int], snapshot: Snapshot) -> bool:
        """Whether the stream's page has the events that must be read, so that the stream can go on."""
        page = self._page(snapshot)
        if page is None:
            return False
        return (self.position is None and self._wants_kept) or page.covers(needs)

    def _page(self, snapshot: Snapshot) -> Page | None:
        """Returns the stream's page, if it has one that is valid in the epoch of `snapshot`."""
        page = self._asked_page.page if self._asked_page is not None else None
        return page if page is not None and page.epoch == snapshot.epoch else None

    def is_ahead(self, snapshot: Snapshot) -> bool:
        """Whether the stream's cursor is later than this worker's snapshot, or not valid in its epoch."""
        if self.position is not None:
            return self.position > snapshot.position
        given = self._given
        return given is not None and (not snapshot.accepts(given) or given.id > snapshot.position)

    def must_probe(self, snapshot: Snapshot) -> bool:
        """Whether the worker must probe the broker before the stream can continue.

        Before `begin`, one probe is enough: if the client's cursor is still later than the worker's position
        after the probe, no worker ever sent this cursor. After a probe, the worker also has every event that
        was published before the stream's request.
        """
        if self.position is None:
            was_probed = self._probed is not None and self._probed.is_set()
            return not was_probed and (self._start.asks_broker or self.is_ahead(snapshot))
        return self.is_ahead(snapshot) and self._continues(snapshot)

    def start_probe(self) -> threading.Event | None:
        """Returns the `threading.Event` to set when the probe was answered; None if a probe is under way."""
        if self._probed is not None and not self._probed.is_set():
            return None
        self._probed = threading.Event()
        return self._probed

    def _continues(self, snapshot: Snapshot) -> bool:
        """Whether the stream's position is valid in the epoch of `snapshot`. Called after `begin`."""
        assert self.position is not None
        if snapshot.epoch == self._epoch:
            return True
        return snapshot.accepts(Cursor(self._epoch, max((self.position, *self._channel_start.values()))))

    def _after(self, name: str) -> int:
        """Returns the position after which the stream needs the channel's events."""
        assert self.position is not None
        return max(self.position, self._channel_start.get(name, 0))

    # -- start of the stream, and lost events -----------------------------------------------------------

    def begin_live(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> Opening | None:
        """Starts a stream that missed no events; returns None if it may have missed some, see `begin`."""
        position, start = snapshot.position, self._start
        if start.cursor or self._wants_kept or start.asks_broker or position != snapshot.seen:
            return None
        for name in self.channels:
            if caches[name].floor > position:
                return None
        self.position, self._epoch, self._complete_at = position, snapshot.epoch, snapshot
        return Opening(str(Cursor(snapshot.epoch, position)), False)

    def begin(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> tuple[Opening, Reset | None]:
        """Sets the stream's first position; returns its `sse.open`, and a reset if events were lost.

        Called when `needs` returns no channels and `must_probe` returns False.
        """
        self._epoch = snapshot.epoch
        if self._wants_kept:
            return self._begin_with_kept(caches, snapshot)
        if not self._start.cursor:
            self.position = snapshot.position
            return Opening(str(self.cursor), False), None
        if self._given is None or self.is_ahead(snapshot):
            reason = "epoch" if self._given and self._given.epoch != snapshot.epoch else "cursor"
            return Opening(LOST, False), self._lose(list(self.channels), reason, snapshot)
        self.position = self._given.id
        reset = self.reset(caches, snapshot)
        lost_all = reset is not None and reset.cursor is not None
        return Opening(LOST if lost_all else str(self._given), reset is None), reset

    def _begin_with_kept(
        self, caches: Mapping[str, ChannelCache], snapshot: Snapshot
    ) -> tuple[Opening, Reset | None]:
        page, asked = self._page(snapshot), self._asked_page
        begin = self._newest_begin(caches, snapshot)
        starts = {name: caches[name].floor for name in self.channels}
        if page is not None and asked is not None:
            begin, starts = asked.begin, page.start
        self.position = begin or 0
        self._channel_start = {name: max(self.position, start) for name, start in starts.items()}
        if begin:
            opening = Opening(str(self.cursor), False)
        else:
            self.gaps += [Gap(name, 0, start) for name, start in self._channel_start.items()]
            opening = Opening(EARLIEST, False)
        if asked is not None and asked.is_lost:
            return opening, self._lose(list(self.channels), "history", snapshot)
        return opening, None

    def _newest_begin(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> int | None:
        """Returns the position after which the newest events are that the client wants.

        Returns 0 if there are not more events than the client wants. Returns None if the client wants every
        kept event, or if the caches do not have all the wanted events.
        """
        newest = None if self._start.cursor else self._start.newest
        if newest is None:
            return None
        of_channels = [caches[name] for name in self.channels]
        base = max([cache.floor for cache in of_channels if not cache.has_all_kept], default=0)
        found: set[int] = set()
        for cache in of_channels:
            kept = cache.between(base, snapshot.seen)
            found.update([entry.id for entry in kept if not entry.is_expired(self.clock(snapshot))])
        if len(found) > newest:
            return sorted(found)[-newest - 1]
        if base and len(found) == newest:
            return base
        return 0 if not base else None

    def skip(self, until: int) -> None:
        """Skips the missed events up to and including the position `until`."""
        self.position = max(self.position or 0, until)

    def reset(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> Reset | None:
        """Skips the events that are gone: their channels continue from the position of `snapshot`.

        :returns: the reset that names these channels; None if no events are gone.
        """
        continues = self._continues(snapshot)
        self._epoch = snapshot.epoch
        if not continues:
            self._channel_start = {}
            return self._lose(list(self.channels), "epoch", snapshot)
        lost = [name for name in self.channels if caches[name].coverage(self._after(name)) is Coverage.LOST]
        if not lost:
            return None
        self.gaps += [Gap(name, self._after(name), snapshot.position) for name in lost]
        return self._lose(lost, "history", snapshot)

    def _lose(self, lost: list[str], reason: str, snapshot: Snapshot) -> Reset:
        if len(lost) == len(self.channels):
            self.position, self._channel_start = snapshot.position, {}
            return reset_of(lost, self.channels, reason, self.cursor)
        for name in lost:
            self._channel_start[name] = snapshot.position
        return reset_of(lost, self.channels, reason, None)

    # -- missed entries ---------------------------------------------------------------------------------

    def take(
        self, caches: Mapping[str, ChannelCache], snapshot: Snapshot, chunk_cache: ChunkCache
    ) -> MissedChunk:
        """Returns the next chunk of missed events. After the last chunk, the stream may join its group.

        :param chunk_cache: has the newest chunk, which is returned if this stream missed the same events.
        """
        page = self._page(snapshot)
        self.is_paging = page is not None
        if page is not None:
            return self._take_from(page, caches, snapshot)
        form = self.joining, self.boundary
        key = self.channels, self.position, self._channel_start, snapshot, form
        if chunk_cache.key == key:
            chunk, reached = chunk_cache.chunk, True
        else:
            chunk, reached = self._chunk(caches, snapshot), self._reached(caches)
            # Without the wanted events, the same snapshot may give more events after the next read.
            if reached and not any(entry.expires for entry in chunk.entries):
                start = dict(self._channel_start)
                chunk_cache.key = self.channels, self.position, start, snapshot, form
                chunk_cache.chunk = chunk
        if chunk.position is not None:
            self.position = chunk.position
        if chunk.is_last and reached:
            self._complete_at = snapshot
        return chunk

    def _take_from(self, page: Page, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> MissedChunk:
        """Returns the next chunk up to the end of the stream's page. After the last chunk, drops the page."""
        assert self.position is not None
        chunk = self._chunk(caches, snapshot)
        if chunk.position is not None:
            self.position = chunk.position
        if chunk.is_last:
            self.position = max(self.position, min(page.until, snapshot.position))
            self._asked_page = None
        return MissedChunk(chunk.entries, self.position, False)

    def _chunk(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> MissedChunk:
        missed = self.entries(caches, snapshot)
        if not missed:
            return NO_CHUNK
        entries: list[Entry] = []
        size = 0
        clock = self.clock(snapshot)
        for entry in self._joined(missed):
            if entry.is_expired(clock):
                continue
            if entries and size + len(entry.frame) > MAX_CHUNK:
                break
            size += len(entry.frame)
            entries.append(entry)
        position = (entries or missed)[-1].id
        return MissedChunk(entries, position, position == missed[-1].id)

    def _joined(self, missed: Iterable[Entry]) -> Iterable[Entry]:
        if self.joining is None or not self.joining.concerns(self.channels):
            return missed
        return self.joining.join(missed, self.boundary)

    def _reached(self, caches: Mapping[str, ChannelCache]) -> bool:
        """Whether the channel caches have every event after the stream's position.

        A cache may lack some of these events: the history of a new channel may be read only from a later
        position on.
        """
        return all(caches[name].floor <= self._after(name) for name in self.channels)

    def entries(self, caches: Mapping[str, ChannelCache], snapshot: Snapshot) -> list[Entry]:
        """Returns the missed entries of all channels in the order of their ids.

        An entry of several channels is in the list once.
        """
        page, until = self._page(snapshot), snapshot.seen
        if page is not None:
            until = min(until, page.until)
        found = {}
        for name in self.channels:
            source = page if page is not None and name in page.entries else None
            after = self._after(name)
            entries = source.between(name, after, until) if source else caches[name].between(after, until)
            for entry in entries:
                found[entry.id] = entry
        return [found[id] for id in sorted(found)]
