"""The dispatcher: the thread that takes items from the inbox and writes their events to the streams.

A link reader that has read a few events for a few streams writes them itself, if the dispatcher waits and the
inbox is empty. Most events go to one user, and a switch of threads would add much to the work for one event.
The dispatcher's turn makes sure that only one thread dispatches at a time, in the order of the inbox.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..brokers.base import LinkMessage, LiveEvent
from ..brokers.tracing import tracing_of
from ..history.channel_cache import ChannelCache
from ..history.history_cache import Dispatch, Item
from ..history.shards import Shard, ShardItem
from ..protocol.command import COMMAND_CHANNEL
from .commands import Effect
from .group import Delivery, Group
from .inbox import Inbox
from .latency import Latency, trace_delivered
from .maintenance import Maintenance
from .state import HubState

logger = logging.getLogger(__name__)

#: At most how many streams the dispatcher writes to before it lets other threads run.
MAX_RUN = 500
#: At most how many events a link reader dispatches itself, and to at most how many streams.
MAX_DIRECT, MAX_DIRECT_STREAMS = 16, 50

FAILED = "the dispatcher failed; closing all streams, so that the clients resume"

_NO_NOTICES: Mapping[Group, bytes] = {}


class Dispatcher:
    """Turns the items of the inbox into deliveries, under the hub's lock, then writes them without the lock.

    :param stopping: returns whether the worker is about to stop.
    """

    def __init__(self, state: HubState, inbox: Inbox, stopping: Callable[[], bool]) -> None:
        self._state = state
        self._inbox = inbox
        self._history_cache = state.shards.all[0].history_cache  # commands are published on the first shard
        self._callbacks: deque[Callable[[], Iterable[Effect]]] = deque()
        self._closed = False
        self._latency = Latency(state.shards, state.counters)
        self._tracing = tracing_of(state.settings.trace)
        # The step that is under way. An error, or the end of a thread, leaves it True for `_repair` to see.
        self._dispatching = self._writing = False
        self.turn = threading.Lock()  # whoever has it may dispatch and write
        self._handed_over: list[Delivery | Effect] = []  # steps that a link reader has left to this thread
        # Coalescing means waiting, and only the dispatcher makes spans.
        if not state.settings.coalesce and self._tracing is None:
            for shard in state.shards.all:
                shard.reader.dispatch_now = self._dispatch_now
        self.maintenance = Maintenance(state, stopping, self.deliver)

    def run(self) -> None:
        """Dispatches until `close` is called. This is the main function of the dispatcher's thread.

        If something has ended the thread, the next thread calls this method again.
        """
        while not self._closed:
            try:
                if not (self._dispatching or self._writing):
                    self._wait()
                with self.turn:
                    self._repair()
                    self._run_round()
            except Exception:
                logger.exception(FAILED)

    def _wait(self) -> None:
        due = min(self.maintenance.must_begin, self._state.fanout.batches.next_due)
        self._inbox.wait(max(0.0, due - self._state.clock()), self._state.settings.coalesce)

    def _run_round(self) -> None:
        if self._handed_over:
            self._writing = True
            steps, self._handed_over = self._handed_over, []
            self.deliver(steps)
        items = self._inbox.take()
        if items or self.is_due():
            self._dispatching = True
            steps = self.dispatch(items)
            self._dispatching, self._writing = False, True
            self.deliver(steps)
            if self._tracing is not None:
                trace_delivered(self._tracing, self._state.shards)
        self._writing = True
        if self._callbacks:
            self._run_callbacks()
        now = self._state.clock()
        if now >= self.maintenance.may_begin:
            self.maintenance.round(now)
        self._writing = False

    def _repair(self) -> None:
        """If something has interrupted the last round, repairs what that round left unfinished.

        Streams may have missed chunks. Closed streams resume and lose no events. The items of the round may
        be lost, and with them events: as after a broken link, the worker reads all channels again.
        """
        if self._dispatching:
            self._inbox.put_first((shard.number, None) for shard in self._state.shards.all)
            self._state.shards.renew_links()
            self._dispatching, self._writing = False, True
        if self._writing:
            self.close_streams("error")
            with self._state.lock:
                self.maintenance.start_over(self._state.clock())
            self._writing = False

    # -- in the thread of a link reader -----------------------------------------------------------------

    def _dispatch_now(self, item: tuple[int, list[LinkMessage]]) -> bool:
        """Dispatches a few live events at once, in the thread of the link reader that has read them.

        Neither waits nor runs effects: those could keep the reader from its link.

        :returns: False if the item must wait in the inbox.
        """
        if not self._is_small(*item) or not self.turn.acquire(blocking=False):
            return False
        try:
            waiting = self._inbox.items or self._callbacks or self._handed_over
            if waiting or self._dispatching or self._writing or self._state.channel_changes.under_way:
                return False
            self._dispatching, due = True, self._state.fanout.batches.next_due
            steps = self.dispatch([item])
            self._dispatching, self._writing = False, True
            if self._are_small(steps):
                self.deliver(steps)
            else:
                self._handed_over = steps
            self._writing = False
            if self._handed_over or self._state.fanout.batches.next_due < due:
                self._inbox.wake()
        except Exception:
            logger.exception(FAILED)
        finally:
            if self._dispatching or self._writing:  # the dispatcher repairs what was interrupted
                self._inbox.wake()
            self.turn.release()
        return True

    def _is_small(self, number: int, messages: Sequence[LinkMessage]) -> bool:
        """Whether the messages of a shard are only a few live events, each of them for a few streams."""
        if len(messages) > MAX_DIRECT:
            return False
        caches = self._state.shards.all[number].history_cache.caches
        for message in messages:
            if type(message) is not LiveEvent or message.channel == COMMAND_CHANNEL:
                return False
            cache = caches.get(message.channel)
            if cache is not None and cache.users > MAX_DIRECT_STREAMS:
                return False
        return True

    def is_due(self) -> bool:
        """Whether there is something to dispatch even without new items."""
        return (
            bool(self._state.channel_changes.under_way)
            or self._state.fanout.batches.next_due <= self._state.clock()
        )

    def call_soon(self, handler: Callable[[], Iterable[Effect]]) -> None:
        """Queues `handler` to run on the dispatcher's thread, under the hub's lock. Any thread may call."""
        self._callbacks.append(handler)
        self._inbox.wake()

    def _run_callbacks(self) -> None:
        while self._callbacks:
            handler = self._callbacks.popleft()
            with self._state.lock:
                effects = list(handler())
            self.deliver(effects)

    # -- making of deliveries ---------------------------------------------------------------------------

    def dispatch(self, items: Sequence[ShardItem]) -> list[Delivery | Effect]:
        """Returns the deliveries and effects of `items`, in the order in which they must be carried out."""
        by_shard: dict[int, list[Item]] = {}
        for number, item in items:
            by_shard.setdefault(number, []).append(item)
        with self._state.lock:
            steps: list[Delivery | Effect] = []
            for shard in self._state.shards.all:
                arrived = by_shard.get(shard.number)
                if arrived or not items:
                    steps += self._take(shard, arrived or ())
            now = self._state.clock()
            if self._state.fanout.batches.next_due <= now:
                steps += self._state.fanout.due_batches(now)
            if self._state.channel_changes.under_way:
                # Chunks must be written in the order in which they were made: the checksums of compressed
                # streams depend on that order. So the pending batches are made into chunks first.
                steps += self._state.fanout.take_pending()
                steps += self._state.channel_changes.advance()
                steps.append(self._state.shards.poke)
            return steps

    def _take(self, shard: Shard, items: Iterable[Item]) -> list[Delivery | Effect]:
        """Returns the deliveries and effects of items from one shard."""
        dispatch = shard.history_cache.take(items)
        notices = self._note_loss(shard, dispatch) if dispatch.new_epoch or dispatch.lost else _NO_NOTICES
        steps: list[Delivery | Effect] = []
        if notices or self._state.fanout.early:
            steps += self._state.fanout.take_pending(notices)
        cache = shard.history_cache.caches.get(COMMAND_CHANNEL)
        if cache is not None:
            if cache is not self._state.commands.heard and cache.live:
                steps += self._state.commands.begin(cache, self._history_cache.broker_clock.stored_by)
            if dispatch.entries and cache.head != self._state.commands.newest:
                return steps + self._with_commands(cache, dispatch, notices)
        if dispatch.entries or notices:
            steps += self._state.fanout.deliveries(dispatch.entries, notices)
        return steps

    def _with_commands(
        self, cache: ChannelCache, dispatch: Dispatch, notices: Mapping[Group, bytes]
    ) -> list[Delivery | Effect]:
        """Returns the deliveries of a dispatch, and between them the effects of each command in order."""
        steps: list[Delivery | Effect] = []
        for entries, command in self._state.commands.split(cache, dispatch.entries):
            steps += self._state.fanout.deliveries(entries, notices)
            notices = _NO_NOTICES
            if command is not None:
                steps += self._state.commands.handle(command)
        return steps

    def _note_loss(self, shard: Shard, dispatch: Dispatch) -> dict[Group, bytes]:
        """Notes that a shard lost events. Returns the `sse.reset` frame of each group that lost events."""
        notices = self._state.fanout.reset_notices(shard, dispatch)
        if dispatch.new_epoch:
            self._begin_epoch(shard)
        first = shard.history_cache is self._history_cache
        if (dispatch.new_epoch and first) or COMMAND_CHANNEL in dispatch.lost:
            self._state.commands.lost()
        for gap in dispatch.lost.values():
            self._state.channel_changes.note_lost(gap, self._state.fanout.followers(shard, gap.channel))
        return notices

    def _begin_epoch(self, shard: Shard) -> None:
        """Replaces the positions of a shard's streams, because the shard has lost its data."""
        base = shard.history_cache.announced.base
        for stream in self._state.streams.values():
            if self._state.shards.placement(stream.subscribed).parts.keys() == {shard.number}:
                self._state.channel_changes.begin_epoch(stream)
                stream.began = base

    # -- writing of deliveries ----------------------------------------------------------------------------

    def deliver(self, steps: Sequence[Delivery | Effect]) -> None:
        """Writes deliveries and runs effects, in order. Called without the hub's lock.

        A stream that has ended in the meantime ignores its chunk.
        """
        served = 0
        # The delivery that is measured, until its stream has got the chunk.
        sample = None if time.monotonic() < self._state.counters.measure_at else self._latency.pick(steps)
        for delivery in steps:
            if not isinstance(delivery, Delivery):
                delivery()
                continue
            streams = delivery.recipients.streams
            count = len(streams)
            self._state.counters.delivered += len(delivery.entries) * count
            self._state.counters.sent += len(delivery.chunk) * count
            if delivery.notice:
                for stream in streams:
                    self._state.listeners.tell_lost(stream)
            for begin in range(0, count, MAX_RUN):
                if served >= MAX_RUN:
                    served = 0
                    time.sleep(0)
                end = min(begin + MAX_RUN, count)
                delivery.write(begin, end)
                served += end - begin
                if sample is not None and sample.is_written(delivery, end):
                    sample = None

    @staticmethod
    def _are_small(steps: Sequence[Delivery | Effect]) -> bool:
        """Whether all steps are deliveries of events, to a few streams in all, which go on after them."""
        streams = 0
        for step in steps:
            if not isinstance(step, Delivery) or step.notice or step.is_last:
                return False
            streams += len(step.recipients.streams)
        return streams <= MAX_DIRECT_STREAMS

    # -- closing ------------------------------------------------------------------------------------------

    def close_streams(self, reason: str) -> None:
        """Closes all streams. The clients connect again and resume.

        :param reason: the reason in the last frame of each stream, unless a stream already has a reason.
        """
        for stream in list(self._state.streams.values()):
            stream.reason = stream.reason or reason
            if stream.compression is not None:
                stream.compression.complete = False  # perhaps a compressed chunk was not written
            retry = self._state.settings.retry
            try:
                stream.end_with_reason(reason, reconnect=True, retry=retry)
            except Exception:  # the other streams must still be closed
                logger.exception("stream %s could not be closed", stream.connection)

    def close(self) -> None:
        """Makes `run` return soon, and closes all streams."""
        self._closed = True
        self.close_streams("closed")
