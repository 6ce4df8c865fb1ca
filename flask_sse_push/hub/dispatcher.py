"""The dispatcher: the one thread that takes what came from the broker and writes it to the streams."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..history.channel_cache import ChannelCache
from ..history.history_cache import Dispatch, Item
from ..history.shards import Shard, ShardItem
from ..protocol.command import COMMAND_CHANNEL
from ..protocol.frames import close_frame
from .commands import Effect
from .group import Delivery, Group
from .maintenance import Maintenance
from .state import HubState

logger = logging.getLogger(__name__)

#: Items that may wait in the inbox. When it is full, the links are not read any further.
MAX_INBOX = 1000
#: Streams written to before other threads get a turn.
MAX_RUN = 500

_NO_NOTICES: Mapping[Group, bytes] = {}


class Inbox:
    """The items that links and fetchers brought and that the dispatcher has not taken yet, in order."""

    def __init__(self) -> None:
        self._items: deque[ShardItem] = deque()
        self._filled = threading.Event()  # also set by `wake`
        self._room = threading.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: ShardItem) -> None:
        """Adds an item. Any thread may call. Blocks while the inbox is full."""
        while len(self._items) >= MAX_INBOX:
            self._room.clear()
            if len(self._items) >= MAX_INBOX:
                self._room.wait()
        self._items.append(item)
        if not self._filled.is_set():
            self._filled.set()

    def wake(self) -> None:
        """Lets `take` return at once. Any thread may call."""
        self._filled.set()

    def take(self, timeout: float, coalesce: float = 0.0) -> list[ShardItem]:
        """Returns all items, at most `MAX_INBOX`. Only the dispatcher calls this.

        Blocks up to `timeout` seconds while there are none. When there are some, waits another `coalesce`
        seconds for more: the more items come together, the fewer chunks are written.
        """
        if not self._items:
            self._filled.wait(timeout)
        if coalesce and self._items:
            time.sleep(coalesce)
        self._filled.clear()  # before the items are counted: `put` appends first and sets the flag after that
        items = []
        for _ in range(min(len(self._items), MAX_INBOX)):
            items.append(self._items.popleft())
        self._room.set()
        return items


class Dispatcher:
    """Makes deliveries of the items in the inbox, under the hub's lock, and writes them without it.

    :param stopping: whether the worker is about to stop.
    """

    def __init__(self, state: HubState, inbox: Inbox, stopping: Callable[[], bool]) -> None:
        self._state = state
        self._inbox = inbox
        self._history_cache = state.shards.all[0].history_cache  # commands are on the first shard
        self._callbacks: deque[Callable[[], Iterable[Effect]]] = deque()
        self._late_handled: ChannelCache | None = None  # the cache of commands whose late ones were handled
        self._closed = False
        self.maintenance = Maintenance(state, stopping, self.deliver)

    def run(self) -> None:
        """Dispatches until closed. The body of the dispatcher's thread."""
        while not self._closed:
            try:
                due = min(self.maintenance.must_begin, self._state.fanout.batches.next_due)
                items = self._inbox.take(max(0.0, due - self._state.clock()), self._state.settings.coalesce)
                if items or self.is_due():
                    self.deliver(self.dispatch(items))
                if self._callbacks:
                    self._run_callbacks()
                now = self._state.clock()
                if now >= self.maintenance.may_begin:
                    self.maintenance.round(now)
            except Exception:
                # A defect must not lose events: a stream that missed a chunk resumes from its cursor.
                logger.exception("the dispatcher failed; closing all streams, whose clients resume")
                self.close_streams("error")

    def is_due(self) -> bool:
        """Whether there is something to dispatch even without new items."""
        return (
            bool(self._state.channel_changes.under_way)
            or self._state.fanout.batches.next_due <= self._state.clock()
        )

    def call_soon(self, handler: Callable[[], Iterable[Effect]]) -> None:
        """Queues `handler` to run on this thread, like the handler of a command. Any thread may call."""
        self._callbacks.append(handler)
        self._inbox.wake()

    def _run_callbacks(self) -> None:
        effects: list[Effect] = []
        with self._state.lock:
            while self._callbacks:
                effects += self._callbacks.popleft()()
        self.deliver(effects)

    # -- from items to deliveries -----------------------------------------------------------------------

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
                # In the order in which they are made: checksums of compressed streams depend on it.
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
            if cache is not self._late_handled and cache.live:
                steps += self._handle_late_commands(cache)
            if dispatch.entries and cache.head != self._state.commands.newest:
                return steps + self._with_commands(cache, dispatch, notices)
        if dispatch.entries or notices:
            steps += self._state.fanout.deliveries(dispatch.entries, notices)
        return steps

    def _with_commands(
        self, cache: ChannelCache, dispatch: Dispatch, notices: Mapping[Group, bytes]
    ) -> list[Delivery | Effect]:
        """The deliveries of a dispatch, and between them the effects of the commands among its entries."""
        steps: list[Delivery | Effect] = []
        for entries, command in self._state.commands.split(cache, dispatch.entries):
            steps += self._state.fanout.deliveries(entries, notices)
            notices = _NO_NOTICES
            if command is not None:
                steps += self._state.commands.handle(command)
        return steps

    def _handle_late_commands(self, cache: ChannelCache) -> list[Effect]:
        """The effects of commands published before this worker subscribed. Called once per channel cache."""
        self._late_handled = cache
        time_of = self._history_cache.time_of
        return self._state.commands.handle_late((entry, time_of(entry.id)) for entry in cache.entries)

    def _note_loss(self, shard: Shard, dispatch: Dispatch) -> dict[Group, bytes]:
        """Notes that a shard lost events. Returns the `sse.reset` frames for its groups."""
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
        """Replaces the positions kept for each stream: those of the old epoch mean nothing in the new one."""
        base = shard.history_cache.announced.base
        for stream in self._state.streams.values():
            if self._state.shards.placement(stream.subscribed).parts.keys() == {shard.number}:
                self._state.channel_changes.begin_epoch(stream)
                stream.began = base

    # -- from deliveries to streams -----------------------------------------------------------------------

    def deliver(self, steps: Sequence[Delivery | Effect]) -> None:
        """Writes deliveries and runs effects. Called without the lock: a stream that has ended since ignores
        its chunk."""
        served = 0
        for delivery in steps:
            if not isinstance(delivery, Delivery):
                delivery()
                continue
            streams = delivery.recipients.streams
            count = len(streams)
            self._state.counters.delivered += delivery.events * count
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

    # -- the end ------------------------------------------------------------------------------------------

    def close_streams(self, reason: str) -> None:
        """Closes all streams. Their clients come back and resume."""
        for stream in list(self._state.streams.values()):
            stream.reason = stream.reason or reason
            if stream.compression is not None:
                stream.compression.complete = False  # a chunk compressed for it may not have been written
            stream.end(close_frame(reason, reconnect=True, retry=self._state.settings.retry))

    def close(self) -> None:
        """Lets `run` return soon, and closes all streams."""
        self._closed = True
        self.close_streams("closed")
