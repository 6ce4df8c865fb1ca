"""Maintenance: sends heartbeats, cuts off clients that do not read, forgets idle channels, does the drain.

Only the dispatcher calls this module, between deliveries.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from ..protocol.shard_cursor import StreamCursor
from .drain import Drain
from .group import Delivery, Group
from .state import HubState
from .stream import Stream

logger = logging.getLogger(__name__)


class Maintenance:
    """The regular work on the streams of one worker. Times are monotonic seconds.

    :param stopping: returns whether the worker is about to stop.
    :param deliver: writes deliveries to streams. Called without the hub's lock.
    """

    def __init__(
        self, state: HubState, stopping: Callable[[], bool], deliver: Callable[[Sequence[Delivery]], None]
    ) -> None:
        settings = state.settings
        self._state = state
        self._linger = settings.linger
        self._deliver = deliver
        self._wheel = HeartbeatWheel(settings.heartbeat)
        self._heartbeats = Heartbeats()
        self._drain = Drain(settings.drain, stopping)
        #: Whether this worker has closed its streams, so that its process need not wait for them any more.
        self.is_drained = False
        #: Registers a new stream for heartbeats. Call it under the hub's lock, with the stream and the time.
        self.add = self._wheel.add
        #: A dispatcher that is awake does the next round of maintenance at this time or later.
        self.may_begin = 0.0
        #: The dispatcher does the next round of maintenance at this time at the latest, so that the drain of
        #: a worker that stops begins in time.
        self.must_begin = 0.0

    def start_over(self, now: float) -> None:
        """Registers all streams again, because an interrupted round may have forgotten some of them.

        Call it under the hub's lock.
        """
        self._wheel.clear()
        for stream in self._state.streams.values():
            self._wheel.add(stream, now)

    def round(self, now: float) -> None:
        """Does all maintenance whose time has come."""
        self.may_begin = now + self._wheel.slot / 2
        self.must_begin = now + self._wheel.slot
        if not self._state.streams and not self._state.shards.idle:
            return
        with self._state.lock:
            draining = self._drain.has_begun()
            leaving = self._drain.leaving(list(self._state.streams.values()), now) if draining else ()
            due = self._wheel.take(now)
            self._state.shards.forget_idle(now - self._linger)
            self._state.shards.tend(now)
        due = [stream for stream in due if self._state.streams.get(stream.connection) is stream]
        if leaving or due or self._state.fanout.early:
            self._write_pending([*leaving, *[stream for stream in due if self._wheel.is_silent(stream, now)]])
        self._close(leaving, now)
        if due:
            self._look_after(due, now)
            with self._state.lock:
                for stream in due:
                    self._wheel.add(stream, silent_since(stream) if stream.group else now)

    def _close(self, leaving: Sequence[Stream], now: float) -> None:
        """Ends streams of a worker that stops. Cuts a stream whose client does not read the last frame."""
        over = self._drain.is_over(now)
        for stream in leaving:
            if over and stream.reason:
                stream.cut()
            else:
                stream.reason = stream.reason or "drain"
                stream.end_with_reason("drain", reconnect=True, retry=self._state.settings.retry)
        self.is_drained = over

    def _write_pending(self, streams: Sequence[Stream]) -> None:
        """Writes the waiting batches of these streams now, because their next frames have a later cursor."""
        with self._state.lock:
            pending = self._state.fanout.take_pending([stream.group for stream in streams])
        self._deliver(pending)

    def _look_after(self, streams: Sequence[Stream], now: float) -> None:
        silent: dict[Group, list[Stream]] = {}
        for stream in streams:
            cut = stream.cut_if_stuck(now)
            if not cut and stream.group is not None and self._wheel.is_silent(stream, now):
                silent.setdefault(stream.group, []).append(stream)
        for group, members in silent.items():
            self._send_heartbeat(group, members, now)

    def _send_heartbeat(self, group: Group, streams: Sequence[Stream], now: float) -> None:
        """Writes a heartbeat to some streams of a group. Compressed streams each get a chunk of their own."""
        if group.window is not None:
            for stream in streams:
                with self._state.lock:
                    chunk = stream.own_chunk(group.heartbeat())
                self._write([stream], chunk, now)
        else:
            self._write(streams, self._heartbeats.chunk(group), now)

    @staticmethod
    def _write(streams: Sequence[Stream], chunk: bytes, now: float) -> None:
        for stream in streams:
            stream.written_at = now
            stream.bytes += len(chunk)
        type(streams[0]).recipients(streams).share().write(chunk, 0, len(streams))


class HeartbeatWheel:
    """The streams, sorted into slots: short spans of time in which streams may need a heartbeat.

    Times are monotonic seconds.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        #: How long one slot is, in seconds. A heartbeat may be early or late by at most this time.
        self.slot = min(0.25, interval / 4)
        self._slots: defaultdict[int, list[Stream]] = defaultdict(list)
        self._next = 0

    def add(self, stream: Stream, silent_since: float) -> None:
        """Adds a stream to the slot in which it needs a heartbeat if nothing is written to it until then.

        :param silent_since: when the last chunk was written to the stream.
        """
        interval = self._interval if stream.poll is None else stream.poll
        due = int((silent_since + interval) / self.slot)
        self._slots[max(due, self._next)].append(stream)

    def clear(self) -> None:
        """Removes all streams."""
        self._slots.clear()

    def take(self, now: float) -> list[Stream]:
        """Removes and returns the streams of all slots up to the time `now`."""
        current = int(now / self.slot)
        if not self._slots:
            self._next = current
            return []
        due: list[Stream] = []
        for slot in [slot for slot in self._slots if slot <= current]:
            due += self._slots.pop(slot)
        self._next = current + 1
        return due

    def is_silent(self, stream: Stream, now: float) -> bool:
        """Whether a stream needs a heartbeat now or within the length of one slot."""
        interval = self._interval if stream.poll is None else stream.poll
        return now - silent_since(stream) >= interval - self.slot


class Heartbeats:
    """Makes the chunks of heartbeats. A chunk is made once for all streams of a format and a cursor."""

    def __init__(self) -> None:
        self._cursor: StreamCursor | None = None
        self._chunks: dict[Hashable, bytes] = {}

    def chunk(self, group: Group) -> bytes:
        """Returns a heartbeat with the cursor of the group, for its streams that are not compressed."""
        cursor = group.cursor()
        if cursor != self._cursor:
            self._cursor, self._chunks = cursor, {}
        key = group.kind, group.heartbeat_form
        if key not in self._chunks:
            self._chunks[key] = group.kind.framed(group.heartbeat())
        return self._chunks[key]


def silent_since(stream: Stream) -> float:
    """Returns the monotonic time at which the last chunk was written to a stream or to its whole group."""
    group = stream.group
    return max(stream.written_at, group.written_at) if group else stream.written_at
