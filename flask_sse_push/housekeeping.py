"""What is done for streams between events: heartbeats, clients that do not read, the drain.

Called by the dispatcher alone, as what it does comes between chunks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from .config import Settings
from .drain import Drain
from .fanout import Fanout
from .group import Delivery, Group
from .heartbeat import Heartbeats, HeartbeatWheel, silent_since
from .shards import Shards
from .sink import Sink

logger = logging.getLogger(__name__)


class Housekeeping:
    """Looks after the streams of one worker. Times are monotonic seconds.

    :param sinks: the open streams, by their connections.
    :param lock: the hub's.
    :param stopping: whether the worker is to end.
    :param deliver: writes chunks out; called without the lock.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        fanout: Fanout,
        shards: Shards,
        settings: Settings,
        *,
        lock: threading.Lock,
        stopping: Callable[[], bool],
        deliver: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._sinks = sinks
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

    def begin(self, sink: Sink, now: float) -> None:
        """Looks after a stream until it is gone. Called under the lock."""
        self._wheel.add(sink, now)

    def round(self, now: float) -> None:
        """Does what is due."""
        if not self._sinks and not self._shards.idle:
            return
        with self._lock:
            leaving = self._drain.due(list(self._sinks.values()), now) if self._drain.wanted() else ()
            due = self._wheel.turn(now)
            self._shards.forget_idle(now - self._linger)
        due = [sink for sink in due if self._sinks.get(sink.connection) is sink]
        if self._fanout.waits:
            self._flush([*leaving, *[sink for sink in due if self._wheel.silent_for(sink, now)]])
        for sink in leaving:
            sink.reason = sink.reason or "drain"
            sink.end(self._drain.frame())
        self._look_after(due, now)
        with self._lock:
            for sink in due:
                self._wheel.add(sink, silent_since(sink) if sink.group else now)

    def _flush(self, sinks: Sequence[Sink]) -> None:
        """Sends what waits for a batch: what follows tells a position after it."""
        with self._lock:
            flushed = self._fanout.flushed([sink.group for sink in sinks])
        self._deliver(flushed)

    def _look_after(self, sinks: Sequence[Sink], now: float) -> None:
        silent: dict[Group, list[Sink]] = {}
        for sink in sinks:
            if sink.is_stuck(now):
                logger.info("cutting stream %s: its client takes nothing", sink.connection)
                sink.reason = "stuck"
                sink.cut()
            elif sink.group is not None and self._wheel.silent_for(sink, now):
                silent.setdefault(sink.group, []).append(sink)
        for group, those in silent.items():
            self._beat(group, those, now)

    def _beat(self, group: Group, sinks: Sequence[Sink], now: float) -> None:
        """Writes a heartbeat to some sinks of a group: one chunk for all, but for compressed ones."""
        if group.cohort is not None:
            for sink in sinks:
                with self._lock:
                    beat = sink.own(self._heartbeats.frame(group))
                self._write([sink], beat, now)
        else:
            self._write(sinks, self._heartbeats.chunk(group), now)

    @staticmethod
    def _write(sinks: Sequence[Sink], beat: bytes, now: float) -> None:
        for sink in sinks:
            sink.touched = now
            sink.bytes += len(beat)
        type(sinks[0]).audience(sinks).lend().write(beat, 0, len(sinks))
