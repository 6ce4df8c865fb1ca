"""The hub: what one worker process knows of its channels, and the thread that hands events to its streams.

Three threads (greenlets on a gevent worker) serve all streams: the reader hears, the fetcher asks, and the
dispatcher, here, is the only one that writes to sinks. All state is under one lock, which is never held
during I/O.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .batching import Batching
from .brokers.base import Broker
from .catchup import CatchUp, way_of
from .config import Settings
from .control import CONTROL, Act, Commands
from .cursor import Cursor
from .drain import close_frame, open_streams
from .errors import BrokerUnavailable
from .fanout import Fanout
from .figures import Figures, Levels
from .group import Delivery, frames_for
from .housekeeping import Housekeeping
from .observer import Observer
from .replica import Replica
from .resume import Opening, Piece, Shelf, Start, reset_frame
from .rooms import Rooms
from .shards import Shard, ShardItem, Shards
from .sink import Sink
from .timeline import Item
from .usher import Usher
from .vector import Vector
from .wire import opening_frame

logger = logging.getLogger(__name__)

#: Reads that wait for the dispatcher; when it is full, the reader stops reading.
MAX_INBOX = 1000
#: Sinks served before other threads get a turn.
MAX_RUN = 500
#: Seconds that a worker's first link may take before it is one that is missed.
FIRST_LINK = 2.0
#: Seconds between two looks at whether commands are heard.
ATTEND_STEP = 0.005


class Hub:
    """All streams of one worker. Starts its threads with the first stream; `close` may be called twice."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        observer: Observer | None = None,
        clock: Callable[[], float] | None = None,
        figures: Figures | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or time.monotonic
        self._observer = observer or Observer()
        self._figures = figures or Figures()
        self._inbox: queue.Queue[ShardItem] = queue.Queue(MAX_INBOX)
        self._lock = threading.Lock()
        self._shards = Shards(broker.shards, secrets.token_hex(6), self._inbox.put, settings)
        first = self._shards.all[0]  # commands are there
        self._timeline, self._reader = first.timeline, first.reader
        self._batching = Batching(settings.batch_ms)
        self._fanout = Fanout(self._shards, self._batching, self._clock)
        self._shelf = Shelf()
        self._sinks: dict[str, Sink] = {}
        self._housekeeping = Housekeeping(
            self._sinks,
            self._fanout,
            self._shards,
            settings,
            lock=self._lock,
            stopping=stopping,
            deliver=self._deliver,
        )
        #: What this worker does when it is told to; see `control`.
        self.commands = Commands()
        self._errands: deque[Callable[[], Iterable[Act]]] = deque()
        self._rooms = Rooms(
            self._shards,
            settings.max_channels,
            clock=self._clock,
            move=self._fanout.move,
            changed=self._observer.changed,
        )
        #: What is done to streams on command.
        self.usher = Usher(
            self._sinks,
            self._fanout,
            self._shards,
            self._rooms,
            self._observer,
            retry=settings.retry,
            clock=self._clock,
            deliver=self._deliver,
        )
        self.usher.obey(self.commands)
        self._listening: Replica | None = None  # that of the commands, since it is live
        self._started = False
        self._closed = False

    # -- streams: called from their own threads --------------------------------------------------------

    def __len__(self) -> int:
        return len(self._sinks)

    def __contains__(self, sink: Sink) -> bool:
        return self._sinks.get(sink.connection) is sink

    def open(self, sink: Sink) -> None:
        """Counts a stream as open; `leave` must follow."""
        if not self._started:
            self._start()
        now = self._clock()
        with self._lock:
            sink.touched, sink.since = now, time.time_ns() / 1e9
            if not self._sinks:
                self._shards.all[0].enter(CONTROL, 0)  # with all that is kept of it
            self._sinks[sink.connection] = sink
            self._housekeeping.begin(sink, now)
            self._shards.enter(sink.subscribed)
        self._observer.opened(sink)

    def leave(self, sink: Sink) -> None:
        """Forgets a stream."""
        now = self._clock()
        with self._lock:
            if self._sinks.pop(sink.connection, None) is None:
                return
            self._fanout.part(sink)
            self._rooms.forget(sink)
            self._shards.exit(sink.subscribed, now)
            if not self._sinks:
                self._shards.exit((CONTROL,), now)
        self._observer.closed(sink)

    def streams(self, *, user_id: str | None = None, channel: str | None = None) -> list[Sink]:
        """The streams of this moment that meet what is given. Any thread may call."""
        with self._lock:
            return self.usher.matching(user_id=user_id, channel=channel)

    def way(self, channels: tuple[str, ...], start: Start) -> CatchUp:
        """What a stream of `channels` that begins at `start` has to catch up with; for `follow`."""
        return way_of(self._shards.route(channels), start)

    def follow(self, sink: Sink, way: CatchUp, timeout: float) -> bytes | None:
        """The next frames that the stream missed; None once it has joined its group, and has them all.

        The look for missed events and the join are one step under the lock: nothing fits in between.

        :returns: b"" when the broker could not be asked within `timeout` seconds, and when it is ending.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                if sink.dismissed:
                    break
                if way.is_served():
                    self._join(sink, way)
                    return None
                if not way.blocks():
                    return self._advance(sink, way)
            way.poke()
            if not way.wait(deadline - time.monotonic()):
                return b""
        way.wait(deadline - time.monotonic())
        return b""

    def _advance(self, sink: Sink, way: CatchUp) -> bytes | None:
        notices = b""
        opening, resets = way.step()
        if opening is not None:
            sink.began = way.began
            notices = self._open_frame(sink, opening)
        if way.account is not None and way.account.gaps:
            self._rooms.note_gaps(sink, way.account)
        for reset in resets:
            sink.began = way.began if reset.cursor else sink.began
            notices += reset_frame(reset)
        if resets:
            self._observer.lost(sink)
        piece = way.take(self._shelf)
        missed = notices + self._frames(sink, piece)
        if not missed:
            self._join(sink, way)
            return None
        if piece.entries:
            self._figures.replayed(len(piece.entries), len(missed))
        sink.events += len(piece.entries)
        if piece.limited:
            sink.events -= sum(sink.is_excluded(entry.exclude) for entry in piece.entries)
        sink.bytes += len(missed)
        if opening is not None and way.is_served() and sink.carry(missed):
            self._join(sink, way)
            return None
        return missed

    def _frames(self, sink: Sink, piece: Piece) -> bytes:
        """What a stream gets of a piece; put together once for those that get the same."""
        if not piece.entries:
            return b""
        batched = self._batching.waits(sink.subscribed, sink.wait) is not None
        if piece.limited:
            return frames_for(sink, piece.entries, batched=batched)
        key = batched, sink.subscribed if sink.tagged else None
        frames = piece.frames.get(key)
        if frames is None:
            frames = piece.frames[key] = frames_for(sink, piece.entries, batched=batched)
        return frames

    def _open_frame(self, sink: Sink, opening: Opening) -> bytes:
        secret, sink.secret = sink.secret, None  # told once: not kept for each stream
        return opening_frame(
            opening.cursor,
            sink.connection,
            sink.channels,
            resumed=opening.resumed,
            heartbeat=self._settings.heartbeat,
            secret=secret,
        )

    def _join(self, sink: Sink, way: CatchUp) -> None:
        sink.join()
        sink.touched = self._clock()
        self._fanout.enlist(sink, sink.subscribed, way.at)

    # -- the dispatcher ---------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            first, self._started = not self._started, True
        if first:  # not under the lock: starting a thread may switch to another
            open_streams.append(self.__len__)
            bodies = [("hub", self._run)]
            for shard in self._shards.all:
                bodies += [("reader", shard.reader.run), ("fetcher", shard.fetcher.run)]
            for name, body in bodies:
                threading.Thread(target=body, name=f"flask-sse-push-{name}", daemon=True).start()

    def _run(self) -> None:
        while not self._closed:
            try:
                items = self._arrived()
                if items or self._rooms or self._fanout.waiting.is_due(self._clock()):
                    self._deliver(self._dispatch(items))
                if self._errands:
                    self._run_errands()
                self._housekeeping.round(self._clock())
            except Exception:
                # A defect must not lose events: who may have missed a chunk resumes from its cursor.
                logger.exception("the dispatcher failed; sending all streams away to resume")
                self._send_all_away("error")

    def _arrived(self) -> list[ShardItem]:
        """Everything that waits; the busier the worker, the more goes into one chunk."""
        items: list[ShardItem] = []
        try:
            patience = self._fanout.waiting.timeout(self._clock(), self._housekeeping.step)
            items.append(self._inbox.get(timeout=patience))
            if self._settings.coalesce:
                time.sleep(self._settings.coalesce)
            while len(items) < MAX_INBOX:
                items.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return items

    def _dispatch(self, items: list[ShardItem]) -> list[Delivery | Act]:
        """What is to be done for what arrived, in this order: chunks to write, and acts commanded."""
        with self._lock:
            steps: list[Delivery | Act] = []
            for shard in self._shards.all:
                arrived = [item for timeline, item in items if timeline is shard.timeline]
                if arrived or not items:
                    steps += self._take(shard, arrived)
            steps += self._fanout.due()
            if self._rooms:
                # In the order in which they were put together: checksums of compressed streams rest on it.
                steps += [*self._fanout.flushed([]), *self._rooms.advance(), self._shards.poke]
            return steps

    def _take(self, shard: Shard, items: list[Item]) -> list[Delivery | Act]:
        """What is to be done for what arrived from one shard."""
        timeline = shard.timeline
        dispatch = timeline.take(items)
        notices = self._fanout.reset_notices(shard, dispatch) if dispatch.new_epoch or dispatch.lost else {}
        if dispatch.new_epoch:
            self._begin_epoch(shard)
        if (dispatch.new_epoch and timeline is self._timeline) or CONTROL in dispatch.lost:
            self.commands.lost()
        for gap in dispatch.lost.values():
            self._rooms.note_lost(gap, self._followers(shard, gap.channel))
        steps: list[Delivery | Act] = [*self._fanout.flushed(notices)]
        if timeline is self._timeline:
            steps += self._missed_commands()
        for entries, command in self.commands.pieces(timeline.replicas.get(CONTROL), dispatch.entries):
            steps += self._fanout.deliveries(entries, notices)
            notices = {}
            if command is not None:
                steps += self.commands.obey(command)
        return steps

    def _followers(self, shard: Shard, channel: str) -> list[Sink]:
        """The streams that follow a channel of a shard."""
        groups = [
            group
            for group in self._fanout.groups.values()
            if channel in group.route.parts.get(shard.number, ())
        ]
        return [sink for group in groups for sink in group.sinks]

    def _begin_epoch(self, shard: Shard) -> None:
        """What streams have had is told in positions of the epoch."""
        base = shard.timeline.moment().base
        for sink in self._sinks.values():
            if self._shards.route(sink.subscribed).parts.keys() == {shard.number}:
                self._rooms.begin_epoch(sink)
                sink.began = base

    def _deliver(self, steps: Sequence[Delivery | Act]) -> None:
        """Writes chunks out, without the lock: a sink that leaves meanwhile ignores what comes."""
        served = 0
        for delivery in steps:
            if not isinstance(delivery, Delivery):
                delivery()
                continue
            count = len(delivery.audience)
            self._figures.delivered += delivery.events * count
            self._figures.sent += len(delivery.chunk) * count
            if delivery.notice:
                for sink in delivery.audience.sinks:
                    self._observer.lost(sink)
            for begin in range(0, count, MAX_RUN):
                if served >= MAX_RUN:
                    served = 0
                    time.sleep(0)
                end = min(begin + MAX_RUN, count)
                delivery.write(begin, end)
                served += end - begin

    def _missed_commands(self) -> list[Act]:
        """What was commanded while the worker's first streams were on their way and nobody listened; looked
        for once, as soon as this worker does."""
        replica = self._timeline.replicas.get(CONTROL)
        if replica is None or not replica.live or replica is self._listening:
            return []
        self._listening = replica
        return self.commands.catch_up((entry, self._timeline.time_of(entry.id)) for entry in replica.entries)

    # -- commands without streams -----------------------------------------------------------------------

    def attend(self, timeout: float) -> None:
        """Hears commands until `unattend`, without streams too. Blocks until every later one will be heard.

        :raises BrokerUnavailable: when that is not so within `timeout` seconds.
        """
        if not self._started:
            self._start()
        deadline = time.monotonic() + timeout
        with self._lock:
            self._shards.enter((CONTROL,))
        while not self._timeline.replicas[CONTROL].live:
            if time.monotonic() > deadline:
                self.unattend()
                raise BrokerUnavailable(f"this worker does not hear commands after {timeout} s")
            self._reader.poke()
            time.sleep(ATTEND_STEP)

    def unattend(self) -> None:
        """Takes back an `attend`."""
        with self._lock:
            self._shards.exit((CONTROL,), self._clock())

    def errand(self, handler: Callable[[], Iterable[Act]]) -> None:
        """Has the dispatcher call `handler` as it does handlers of commands, soon. Any thread may call."""
        if self._started:  # else there are no streams
            self._errands.append(handler)
            with contextlib.suppress(queue.Full):  # then the dispatcher is awake
                self._inbox.put_nowait((self._timeline, []))

    def _run_errands(self) -> None:
        acts: list[Act] = []
        with self._lock:
            while self._errands:
                acts += self._errands.popleft()()
        self._deliver(acts)

    def position(self) -> Cursor | Vector | None:
        """How far this worker has provably seen; None before it knows. Does not block."""
        with self._lock:
            return self._shards.position()

    def levels(self) -> Levels:
        """How things stand now. Costs a look at every stream."""
        streams = list(self._sinks.values())
        link = self._shards.link()
        return Levels(
            streams=len(streams),
            buffered=sum([sink.buffered for sink in streams]),
            deaf=int(not link.connected and self._wants_link(streams, link.heard_at)),
            reconnects=link.reconnects,
            probe=link.probe_seconds,
        )

    @staticmethod
    def _wants_link(streams: Sequence[Sink], heard_at: float) -> bool:
        """Whether streams miss the link: not yet when it is being made for the first time."""
        patience = 0.0 if heard_at else FIRST_LINK
        return any(time.time() - sink.since >= patience for sink in streams)

    def stats(self) -> dict[str, Any]:
        """Figures of this worker: counts, and seconds since the broker was last heard.

        `heard_ago` counts from the last signal of any kind, `probed_ago` from the last probe that came back;
        of several shards each tells the worst.
        """
        now, link = time.monotonic(), self._shards.link()
        return {
            "streams": len(self._sinks),
            "groups": len(self._fanout.groups),
            "channels": sum(len(shard.timeline.replicas) for shard in self._shards.all),
            "connected": link.connected,
            "heard_ago": round(now - link.heard_at, 3) if link.heard_at else None,
            "probed_ago": round(now - link.proved_at, 3) if link.proved_at else None,
            "reconnects": link.reconnects,
            "history_calls": sum(shard.fetcher.calls for shard in self._shards.all),
        }

    def close(self) -> None:
        """Ends all streams and threads."""
        self._closed = True
        self._shards.close()
        self._send_all_away("closed")
        if self.__len__ in open_streams:
            open_streams.remove(self.__len__)

    def _send_all_away(self, reason: str) -> None:
        for sink in list(self._sinks.values()):
            sink.reason = sink.reason or reason
            if sink.coding is not None:
                sink.coding.whole = False  # what was made for it may not have been written
            sink.end(close_frame(reason, reconnect=True, retry=self._settings.retry))
