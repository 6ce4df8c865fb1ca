"""Maintenance: sends heartbeats, cuts off clients that do not read, forgets idle channels, does the drain.

Only the dispatcher calls this module, between deliveries.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain

from ..protocol.shard_cursor import StreamCursor
from .drain import Drain
from .group import Delivery, Group
from .state import HubState
from .stream import Stream

logger = logging.getLogger(__name__)

#: At most so many streams get a heartbeat before the dispatcher looks for new events.
MAX_STREAMS = 1000


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
        """Does the maintenance whose time has come. Heartbeats for very many streams take several rounds."""
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
        if leaving or self._state.fanout.early or self._state.fanout.batches.next_due < math.inf:
            self._write_pending([*leaving, *[stream for stream in due if self._wheel.is_silent(stream, now)]])
        self._close(leaving, now)
        if due:
            self._look_after(due, now)
        if len(due) == MAX_STREAMS:  # more streams may be due, but events that have arrived come first
            self.may_begin = self.must_begin = now
            time.sleep(0)

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
        """Cuts stuck streams, sends heartbeats to silent streams, and registers all of them again."""
        silent: dict[Group, list[Stream]] = {}
        others: list[Stream] = []
        last: Group | None = None
        members = others
        is_silent = self._wheel.is_silent
        for stream in streams:
            cut, group = stream.cut_if_stuck(now), stream.group
            if cut or group is None or not is_silent(stream, now):
                others.append(stream)
                continue
            if group is not last:  # neighbours are often in one group
                last, members = group, silent.setdefault(group, [])
            members.append(stream)
        self._send_heartbeats(silent, now)
        with self._state.lock:
            for stream in chain.from_iterable(silent.values()):
                self._wheel.add(stream, now)
            for stream in others:
                if self._state.streams.get(stream.connection) is stream:
                    self._wheel.add(stream, silent_since(stream) if stream.group else now)

    def _send_heartbeats(self, silent: Mapping[Group, Sequence[Stream]], now: float) -> None:
        """Writes heartbeats to some streams of each group. Equal heartbeats are written in one go."""
        equal: dict[tuple[type[Stream], bytes], list[Stream]] = {}
        for group, streams in silent.items():
            if group.window is None:
                equal.setdefault((group.kind, self._heartbeats.chunk(group)), []).extend(streams)
                continue
            for stream in streams:  # each compressed stream gets a chunk of its own
                with self._state.lock:
                    chunk = stream.own_chunk(group.heartbeat())
                self._write([stream], chunk, now)
        for (_, chunk), members in equal.items():
            self._write(members, chunk, now)

    @staticmethod
    def _write(streams: Sequence[Stream], chunk: bytes, now: float) -> None:
        size = len(chunk)
        for stream in streams:
            stream.written_at = now
            stream.bytes += size
        type(streams[0]).recipients(streams).share().write(chunk, 0, len(streams))


class HeartbeatWheel:
    """The streams, sorted into slots: short spans of time in which streams may need a heartbeat.

    A worker with many streams does less if they get their heartbeats together: the processor and the network
    then do the same thing many times in a row. So only every few slots have heartbeats, and a heartbeat may
    be early by a fifteenth of the interval. Short streams end at their time, so they may use any slot.

    Times are monotonic seconds.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        #: How long one slot is, in seconds. A heartbeat may be late by at most this time.
        self.slot = min(0.25, interval / 4)
        self._step = max(1, int(interval / 15 / self.slot))  # every how many slots there are heartbeats
        #: A heartbeat may be early by at most this time, in seconds.
        self.early = self._step * self.slot
        self._slots: defaultdict[int, list[Stream]] = defaultdict(list)
        self._next = 0

    def add(self, stream: Stream, silent_since: float) -> None:
        """Adds a stream to the slot in which it needs a heartbeat if nothing is written to it until then.

        :param silent_since: when the last chunk was written to the stream.
        """
        if stream.poll is None:
            due = int((silent_since + self._interval) / self.slot)
            due -= due % self._step
        else:
            due = int((silent_since + stream.poll) / self.slot)
        self._slots[max(due, self._next)].append(stream)

    def clear(self) -> None:
        """Removes all streams."""
        self._slots.clear()

    def take(self, now: float, most: int = MAX_STREAMS) -> list[Stream]:
        """Removes and returns the streams of all slots up to the time `now`, but at most `most` streams."""
        current = int(now / self.slot)
        if not self._slots:
            self._next = current
            return []
        self._next = current + 1
        due: list[Stream] = []
        for slot in [slot for slot in self._slots if slot <= current]:
            streams, room = self._slots[slot], most - len(due)
            due += streams[:room]
            if len(streams) > room:
                del streams[:room]
                break
            del self._slots[slot]
        return due

    def is_silent(self, stream: Stream, now: float) -> bool:
        """Whether a stream needs a heartbeat now or within the length of one slot."""
        if stream.poll is not None:
            return now - silent_since(stream) >= stream.poll - self.slot
        group, latest = stream.group, now - self._interval + self.early
        return stream.written_at <= latest and (group is None or group.written_at <= latest)


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
