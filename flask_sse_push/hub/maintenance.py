"""Maintenance: heartbeats, clients that do not read, channels without streams, and the drain.

Called by the dispatcher alone, between deliveries.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from ..protocol.frames import close_frame, heartbeat_frame
from ..protocol.shard_cursor import StreamCursor
from .group import Delivery, Group
from .state import HubState
from .stream import Stream

logger = logging.getLogger(__name__)


class Maintenance:
    """The regular work on the streams of one worker. Times are monotonic seconds.

    :param stopping: whether the worker is about to stop.
    :param deliver: writes deliveries to streams. Called without the lock.
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
        self._drain = Drain(settings.drain, settings.retry, stopping)
        #: Called with a new stream and the time now, under the lock.
        self.add = self._wheel.add
        #: The next round may begin from this time on, if the dispatcher is awake anyway.
        self.may_begin = 0.0
        #: The next round must begin at this time, so that a worker that stops is noticed within one slot.
        self.must_begin = 0.0

    def round(self, now: float) -> None:
        """Does what must be done by now."""
        self.may_begin = now + self._wheel.slot / 2
        self.must_begin = now + self._wheel.slot
        if not self._state.streams and not self._state.shards.idle:
            return
        with self._state.lock:
            draining = self._drain.has_begun()
            leaving = self._drain.leaving(list(self._state.streams.values()), now) if draining else ()
            due = self._wheel.take(now)
            self._state.shards.forget_idle(now - self._linger)
        due = [stream for stream in due if self._state.streams.get(stream.connection) is stream]
        if leaving or due or self._state.fanout.early:
            self._write_pending([*leaving, *[stream for stream in due if self._wheel.is_silent(stream, now)]])
        for stream in leaving:
            stream.reason = stream.reason or "drain"
            stream.end(self._drain.last_frame())
        if due:
            self._look_after(due, now)
            with self._state.lock:
                for stream in due:
                    self._wheel.add(stream, silent_since(stream) if stream.group else now)

    def _write_pending(self, streams: Sequence[Stream]) -> None:
        """Writes the batches that wait for these streams. The frames that follow have a later cursor."""
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
        """Writes a heartbeat to some streams of a group: one chunk for all, or one each if compressed."""
        if group.window is not None:
            for stream in streams:
                with self._state.lock:
                    chunk = stream.own_chunk(heartbeat_frame(group.cursor()))
                self._write([stream], chunk, now)
        else:
            self._write(streams, self._heartbeats.chunk(group), now)

    @staticmethod
    def _write(streams: Sequence[Stream], chunk: bytes, now: float) -> None:
        for stream in streams:
            stream.written_at = now
            stream.bytes += len(chunk)
        type(streams[0]).recipients(streams).share().write(chunk, 0, len(streams))


class Drain:
    """Closes the streams of a worker that stops, spread over some seconds. Times are monotonic seconds.

    :param window: seconds until all streams are closed.
    :param retry: seconds after which clients come back, on average.
    :param stopping: whether the worker is about to stop.
    """

    def __init__(self, window: float, retry: float, stopping: Callable[[], bool]) -> None:
        self._window = window
        self._retry = retry
        self._stopping = stopping
        self._began: float | None = None
        self._total = 0

    def has_begun(self) -> bool:
        """Whether the worker is about to stop. Once true, it stays true."""
        return self._began is not None or self._stopping()

    def leaving(self, streams: Sequence[Stream], now: float) -> Sequence[Stream]:
        """The part of the open `streams` that must be closed by now. Called once the drain has begun."""
        if self._began is None:
            self._began, self._total = now, len(streams)
            extra = {"event": "drain", "streams": self._total, "seconds": self._window}
            logger.info("sending %d streams away in %g seconds", self._total, self._window, extra=extra)
        left = 1 - (now - self._began) / self._window if self._window else 0
        return streams[: max(0, len(streams) - int(self._total * left))] if left > 0 else streams

    def last_frame(self) -> bytes:
        """The frame that ends a stream, with a random time until its client comes back."""
        return close_frame("drain", reconnect=True, retry=self._retry)


class HeartbeatWheel:
    """Streams by the time slot in which they may need a heartbeat. Times are monotonic seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        #: Seconds of one slot. A heartbeat may be that much early or late.
        self.slot = min(0.25, interval / 4)
        self._slots: defaultdict[int, list[Stream]] = defaultdict(list)
        self._next = 0

    def add(self, stream: Stream, silent_since: float) -> None:
        """Files a stream under the slot in which it will have been silent for the interval."""
        due = int((silent_since + self._interval) / self.slot)
        self._slots[max(due, self._next)].append(stream)

    def take(self, now: float) -> list[Stream]:
        """Removes the streams of all slots up to now and returns them."""
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
        """Whether nothing was written to a stream for the interval, give or take one slot."""
        return now - silent_since(stream) >= self._interval - self.slot


class Heartbeats:
    """The chunk of the latest heartbeat, made once for all streams of a kind."""

    def __init__(self) -> None:
        self._cursor: StreamCursor | None = None
        self._chunks: dict[type[Stream], bytes] = {}

    def chunk(self, group: Group) -> bytes:
        """A heartbeat with the cursor up to which the group has every event."""
        cursor = group.cursor()
        if cursor != self._cursor:
            self._cursor, self._chunks = cursor, {}
        if group.kind not in self._chunks:
            self._chunks[group.kind] = group.kind.framed(heartbeat_frame(cursor))
        return self._chunks[group.kind]


def silent_since(stream: Stream) -> float:
    """When the last chunk was written to a stream, alone or with its group."""
    group = stream.group
    return max(stream.written_at, group.written_at) if group else stream.written_at
