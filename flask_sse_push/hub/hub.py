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

from ..brokers.base import Broker
from ..config import Settings
from ..errors import BrokerUnavailable
from ..history.channel_cache import ChannelCache
from ..history.history_cache import Item
from ..history.shards import Shard, ShardItem, Shards
from ..protocol.command import COMMAND_CHANNEL
from ..protocol.cursor import Cursor
from ..protocol.frames import close_frame
from ..protocol.shard_cursor import ShardCursor
from .batches import BatchPolicy
from .channel_changes import ChannelChanges
from .commands import Commands, Effect
from .counters import Counters, Gauges
from .disconnect import Disconnector
from .fanout import Fanout
from .group import Delivery
from .listener import StreamListener
from .maintenance import Maintenance
from .opening import StreamOpener
from .shutdown import open_streams
from .stream import Stream

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
        listener: StreamListener | None = None,
        clock: Callable[[], float] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or time.monotonic
        self._listener = listener or StreamListener()
        self._counters = counters or Counters()
        self._inbox: queue.Queue[ShardItem] = queue.Queue(MAX_INBOX)
        self._lock = threading.Lock()
        self._shards = Shards(broker.shards, secrets.token_hex(6), self._inbox.put, settings)
        first = self._shards.all[0]  # commands are there
        self._history_cache, self._reader = first.history_cache, first.reader
        self._batching = BatchPolicy(settings.batch_ms)
        self._fanout = Fanout(self._shards, self._batching, self._clock)
        self._streams: dict[str, Stream] = {}
        self._maintenance = Maintenance(
            self._streams,
            self._fanout,
            self._shards,
            settings,
            lock=self._lock,
            stopping=stopping,
            deliver=self._deliver,
        )
        #: What this worker does when it is told to; see `control`.
        self.commands = Commands()
        self._callbacks: deque[Callable[[], Iterable[Effect]]] = deque()
        self._channel_changes = ChannelChanges(
            self._shards,
            settings.max_channels,
            clock=self._clock,
            move=self._fanout.move,
            changed=self._listener.changed,
        )
        #: What is done to streams on command.
        self.disconnector = Disconnector(
            self._streams,
            self._fanout,
            self._shards,
            self._channel_changes,
            self._listener,
            retry=settings.retry,
            clock=self._clock,
            deliver=self._deliver,
        )
        self.disconnector.run(self.commands)
        #: Brings a new stream to the live position; see `StreamOpener`.
        self.follow = StreamOpener(
            self._shards,
            self._fanout,
            self._channel_changes,
            self._batching,
            self._listener,
            self._counters,
            lock=self._lock,
            clock=self._clock,
            heartbeat=settings.heartbeat,
        ).follow
        #: The recovery of a stream of some channels; for `follow`.
        self.recovery = self._shards.recovery
        self._listening: ChannelCache | None = None  # that of the commands, since it is live
        self._started = False
        self._closed = False

    # -- streams: called from their own threads --------------------------------------------------------

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: Stream) -> bool:
        return self._streams.get(stream.connection) is stream

    def open(self, stream: Stream) -> None:
        """Counts a stream as open; `leave` must follow."""
        if not self._started:
            self._start()
        now = self._clock()
        with self._lock:
            stream.touched, stream.since = now, time.time_ns() / 1e9
            if not self._streams:
                self._shards.enter((COMMAND_CHANNEL,), after=0)  # with all that is kept of it
            self._streams[stream.connection] = stream
            self._maintenance.begin(stream, now)
            self._shards.enter(stream.subscribed)
        self._listener.opened(stream)

    def leave(self, stream: Stream) -> None:
        """Forgets a stream."""
        now = self._clock()
        with self._lock:
            if self._streams.pop(stream.connection, None) is None:
                return
            self._fanout.part(stream)
            self._channel_changes.forget(stream)
            self._shards.exit(stream.subscribed, now)
            if not self._streams:
                self._shards.exit((COMMAND_CHANNEL,), now)
        self._listener.closed(stream)

    def streams(self, *, user_id: str | None = None, channel: str | None = None) -> list[Stream]:
        """The streams of this moment that meet what is given. Any thread may call."""
        with self._lock:
            return self.disconnector.matching(user_id=user_id, channel=channel)

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
                if items or self._channel_changes or self._fanout.waiting.is_due(self._clock()):
                    self._deliver(self._dispatch(items))
                if self._callbacks:
                    self._run_callbacks()
                self._maintenance.round(self._clock())
            except Exception:
                # A defect must not lose events: who may have missed a chunk resumes from its cursor.
                logger.exception("the dispatcher failed; sending all streams away to resume")
                self._send_all_away("error")

    def _arrived(self) -> list[ShardItem]:
        """Everything that waits; the busier the worker, the more goes into one chunk."""
        items: list[ShardItem] = []
        try:
            patience = self._fanout.waiting.timeout(self._clock(), self._maintenance.step)
            items.append(self._inbox.get(timeout=patience))
            if self._settings.coalesce:
                time.sleep(self._settings.coalesce)
            while len(items) < MAX_INBOX:
                items.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return items

    def _dispatch(self, items: list[ShardItem]) -> list[Delivery | Effect]:
        """What is to be done for what arrived, in this order: chunks to write, and acts commanded."""
        with self._lock:
            steps: list[Delivery | Effect] = []
            for shard in self._shards.all:
                arrived = [item for number, item in items if number == shard.number]
                if arrived or not items:
                    steps += self._take(shard, arrived)
            steps += self._fanout.due()
            if self._channel_changes:
                # In the order in which they were put together: checksums of compressed streams rest on it.
                steps += [*self._fanout.flushed([]), *self._channel_changes.advance(), self._shards.poke]
            return steps

    def _take(self, shard: Shard, items: list[Item]) -> list[Delivery | Effect]:
        """What is to be done for what arrived from one shard."""
        history_cache = shard.history_cache
        dispatch = history_cache.take(items)
        notices = self._fanout.reset_notices(shard, dispatch) if dispatch.new_epoch or dispatch.lost else {}
        if dispatch.new_epoch:
            self._begin_epoch(shard)
        if (dispatch.new_epoch and history_cache is self._history_cache) or COMMAND_CHANNEL in dispatch.lost:
            self.commands.lost()
        for gap in dispatch.lost.values():
            self._channel_changes.note_lost(gap, self._followers(shard, gap.channel))
        steps: list[Delivery | Effect] = [*self._fanout.flushed(notices)]
        if history_cache is self._history_cache:
            steps += self._missed_commands()
        for entries, command in self.commands.pieces(
            history_cache.caches.get(COMMAND_CHANNEL), dispatch.entries
        ):
            steps += self._fanout.deliveries(entries, notices)
            notices = {}
            if command is not None:
                steps += self.commands.run(command)
        return steps

    def _followers(self, shard: Shard, channel: str) -> list[Stream]:
        """The streams that follow a channel of a shard."""
        groups = [
            group
            for group in self._fanout.groups.values()
            if channel in group.placement.parts.get(shard.number, ())
        ]
        return [stream for group in groups for stream in group.streams]

    def _begin_epoch(self, shard: Shard) -> None:
        """What streams have had is told in positions of the epoch."""
        base = shard.history_cache.announced.base
        for stream in self._streams.values():
            if self._shards.placement(stream.subscribed).parts.keys() == {shard.number}:
                self._channel_changes.begin_epoch(stream)
                stream.began = base

    def _deliver(self, steps: Sequence[Delivery | Effect]) -> None:
        """Writes chunks out, without the lock: a sink that leaves meanwhile ignores what comes."""
        served = 0
        for delivery in steps:
            if not isinstance(delivery, Delivery):
                delivery()
                continue
            count = len(delivery.recipients)
            self._counters.delivered += delivery.events * count
            self._counters.sent += len(delivery.chunk) * count
            if delivery.notice:
                for stream in delivery.recipients.streams:
                    self._listener.lost(stream)
            for begin in range(0, count, MAX_RUN):
                if served >= MAX_RUN:
                    served = 0
                    time.sleep(0)
                end = min(begin + MAX_RUN, count)
                delivery.write(begin, end)
                served += end - begin

    def _missed_commands(self) -> list[Effect]:
        """What was commanded while the worker's first streams were on their way and nobody listened; looked
        for once, as soon as this worker does."""
        cache = self._history_cache.caches.get(COMMAND_CHANNEL)
        if cache is None or not cache.live or cache is self._listening:
            return []
        self._listening = cache
        return self.commands.catch_up(
            (entry, self._history_cache.time_of(entry.id)) for entry in cache.entries
        )

    # -- commands without streams -----------------------------------------------------------------------

    def hear_commands(self, timeout: float) -> None:
        """Hears commands until `unattend`, without streams too. Blocks until every later one will be heard.

        :raises BrokerUnavailable: when that is not so within `timeout` seconds.
        """
        if not self._started:
            self._start()
        deadline = time.monotonic() + timeout
        with self._lock:
            self._shards.enter((COMMAND_CHANNEL,))
        while not self._history_cache.caches[COMMAND_CHANNEL].live:
            if time.monotonic() > deadline:
                self.stop_hearing_commands()
                raise BrokerUnavailable(f"this worker does not hear commands after {timeout} s")
            self._reader.poke()
            time.sleep(ATTEND_STEP)

    def stop_hearing_commands(self) -> None:
        """Takes back an `attend`."""
        with self._lock:
            self._shards.exit((COMMAND_CHANNEL,), self._clock())

    def call_soon(self, handler: Callable[[], Iterable[Effect]]) -> None:
        """Has the dispatcher call `handler` as it does handlers of commands, soon. Any thread may call."""
        if self._started:  # else there are no streams
            self._callbacks.append(handler)
            with contextlib.suppress(queue.Full):  # then the dispatcher is awake
                self._inbox.put_nowait((0, []))

    def _run_callbacks(self) -> None:
        effects: list[Effect] = []
        with self._lock:
            while self._callbacks:
                effects += self._callbacks.popleft()()
        self._deliver(effects)

    def position(self) -> Cursor | ShardCursor | None:
        """How far this worker has provably seen; None before it knows. Does not block."""
        with self._lock:
            return self._shards.position()

    def gauges(self) -> Gauges:
        """How things stand now. Costs a look at every stream."""
        streams = list(self._streams.values())
        link = self._shards.link()
        return Gauges(
            streams=len(streams),
            buffered=sum([stream.buffered for stream in streams]),
            link_down=int(not link.connected and self._wants_link(streams, link.heard_at)),
            reconnects=link.reconnects,
            probe=link.probe_seconds,
        )

    @staticmethod
    def _wants_link(streams: Sequence[Stream], heard_at: float) -> bool:
        """Whether streams miss the link: not yet when it is being made for the first time."""
        patience = 0.0 if heard_at else FIRST_LINK
        return any(time.time() - stream.since >= patience for stream in streams)

    def stats(self) -> dict[str, Any]:
        """Figures of this worker: counts, and seconds since the broker was last heard.

        `heard_ago` counts from the last signal of any kind, `probed_ago` from the last probe that came back;
        of several shards each tells the worst.
        """
        now, link = time.monotonic(), self._shards.link()
        return {
            "streams": len(self._streams),
            "groups": len(self._fanout.groups),
            "channels": sum(len(shard.history_cache.caches) for shard in self._shards.all),
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
        for stream in list(self._streams.values()):
            stream.reason = stream.reason or reason
            if stream.compression is not None:
                stream.compression.whole = False  # what was made for it may not have been written
            stream.end(close_frame(reason, reconnect=True, retry=self._settings.retry))
