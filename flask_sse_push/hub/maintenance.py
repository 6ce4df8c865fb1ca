"""What is done for streams between events: heartbeats, clients that do not read, the drain.

Called by the dispatcher alone, as what it does comes between chunks.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..config import Settings
from ..history.shards import Shards
from ..protocol.cursor import Cursor
from ..protocol.frames import close_frame, heartbeat_frame
from ..protocol.shard_cursor import ShardCursor
from .fanout import Fanout
from .group import Delivery, Group
from .stream import Stream

logger = logging.getLogger(__name__)


class Maintenance:
    """Looks after the streams of one worker. Times are monotonic seconds.

    :param sinks: the open streams, by their connections.
    :param lock: the hub's.
    :param stopping: whether the worker is to end.
    :param deliver: writes chunks out; called without the lock.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        fanout: Fanout,
        shards: Shards,
        settings: Settings,
        *,
        lock: threading.Lock,
        stopping: Callable[[], bool],
        deliver: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._streams = streams
        self._fanout = fanout
        self._shards = shards
        self._linger = settings.linger
        self._lock = lock
        self._deliver = deliver
        self._wheel = HeartbeatWheel(settings.heartbeat)
        self._heartbeats = Heartbeats()
        self._drain = Drain(settings.drain, settings.retry, stopping)
        #: Seconds after which a round is due at the latest.
        self.step = self._wheel.slot

    def begin(self, stream: Stream, now: float) -> None:
        """Looks after a stream until it is gone. Called under the lock."""
        self._wheel.add(stream, now)

    def round(self, now: float) -> None:
        """Does what is due."""
        if not self._streams and not self._shards.idle:
            return
        with self._lock:
            leaving = self._drain.due(list(self._streams.values()), now) if self._drain.wanted() else ()
            due = self._wheel.turn(now)
            self._shards.forget_idle(now - self._linger)
        due = [stream for stream in due if self._streams.get(stream.connection) is stream]
        if self._fanout.waits:
            self._flush([*leaving, *[stream for stream in due if self._wheel.silent_for(stream, now)]])
        for stream in leaving:
            stream.reason = stream.reason or "drain"
            stream.end(self._drain.frame())
        self._look_after(due, now)
        with self._lock:
            for stream in due:
                self._wheel.add(stream, silent_since(stream) if stream.group else now)

    def _flush(self, streams: Sequence[Stream]) -> None:
        """Sends what waits for a batch: what follows tells a position after it."""
        with self._lock:
            flushed = self._fanout.flushed([stream.group for stream in streams])
        self._deliver(flushed)

    def _look_after(self, streams: Sequence[Stream], now: float) -> None:
        silent: dict[Group, list[Stream]] = {}
        for stream in streams:
            cut = stream.cut_if_stuck(now)
            if not cut and stream.group is not None and self._wheel.silent_for(stream, now):
                silent.setdefault(stream.group, []).append(stream)
        for group, those in silent.items():
            self._beat(group, those, now)

    def _beat(self, group: Group, streams: Sequence[Stream], now: float) -> None:
        """Writes a heartbeat to some sinks of a group: one chunk for all, but for compressed ones."""
        if group.window is not None:
            for stream in streams:
                with self._lock:
                    beat = stream.own(self._heartbeats.frame(group))
                self._write([stream], beat, now)
        else:
            self._write(streams, self._heartbeats.chunk(group), now)

    @staticmethod
    def _write(streams: Sequence[Stream], beat: bytes, now: float) -> None:
        for stream in streams:
            stream.touched = now
            stream.bytes += len(beat)
        type(streams[0]).recipients(streams).lend().write(beat, 0, len(streams))


class Drain:
    """Which streams to end next. Times are monotonic seconds.

    :param window: seconds over which the streams are sent away.
    :param retry: seconds after which clients come back, on average.
    """

    def __init__(self, window: float, retry: float, stopping: Callable[[], bool]) -> None:
        self._window = window
        self._retry = retry
        self._stopping = stopping
        self._began: float | None = None
        self._total = 0

    def wanted(self) -> bool:
        """Whether the worker is to stop. Once true it stays so."""
        return self._began is not None or self._stopping()

    def due(self, streams: Sequence[Stream], now: float) -> Sequence[Stream]:
        """The share of the open `sinks` that must go by now."""
        if not self.wanted():
            return ()
        if self._began is None:
            self._began, self._total = now, len(streams)
            extra = {"event": "drain", "streams": self._total, "seconds": self._window}
            logger.info("sending %d streams away in %g seconds", self._total, self._window, extra=extra)
        left = 1 - (now - self._began) / self._window if self._window else 0
        return streams[: max(0, len(streams) - int(self._total * left))] if left > 0 else streams

    def frame(self) -> bytes:
        """The last words to a stream that is sent away."""
        return close_frame("drain", reconnect=True, retry=self._retry)


class HeartbeatWheel:
    """Sinks by the time slot in which they are looked at next. Times are monotonic seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        #: Seconds of one slot: how late a heartbeat may be, and how often the wheel must be turned.
        self.slot = min(0.25, interval / 4)
        self._slots: defaultdict[int, list[Stream]] = defaultdict(list)
        self._next = 0

    def add(self, stream: Stream, silent_since: float) -> None:
        """Looks at `sink` again when it has been silent for the interval."""
        due = int((silent_since + self._interval) / self.slot)
        self._slots[max(due, self._next)].append(stream)

    def turn(self, now: float) -> list[Stream]:
        """Takes out the sinks whose slot has come."""
        current = int(now / self.slot)
        if not self._slots:
            self._next = current
            return []
        due: list[Stream] = []
        for slot in [slot for slot in self._slots if slot <= current]:
            due += self._slots.pop(slot)
        self._next = current + 1
        return due

    def silent_for(self, stream: Stream, now: float) -> bool:
        """Whether nothing has gone to `sink` for the interval, within the wheel's precision."""
        return now - silent_since(stream) >= self._interval - self.slot


class Heartbeats:
    """The heartbeat of the moment, made once for all streams of a kind."""

    def __init__(self) -> None:
        self._cursor: Cursor | ShardCursor | None = None
        self._chunks: dict[type[Stream], bytes] = {}

    def chunk(self, group: Group) -> bytes:
        """A heartbeat with the current cursor: how far the worker has provably seen."""
        cursor = group.told()
        if cursor != self._cursor:
            self._cursor, self._chunks = cursor, {}
        if group.kind not in self._chunks:
            self._chunks[group.kind] = group.kind.framed(heartbeat_frame(cursor))
        return self._chunks[group.kind]

    @staticmethod
    def frame(group: Group) -> bytes:
        """The same, for a stream that must have it as a chunk of its own."""
        return heartbeat_frame(group.told())


def silent_since(stream: Stream) -> float:
    """When the last chunk went to `sink`, alone or with its group."""
    group = stream.group
    return max(stream.touched, group.touched) if group else stream.touched
