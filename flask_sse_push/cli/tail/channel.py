"""Reads channels directly from the broker, as a worker does. No app checks who may listen."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence

from ...brokers.base import Broker, Echo
from ...config import Settings
from ...history.history_cache import Item
from ...history.position import Reset, StartPoint
from ...history.recovery_driver import Recovery, Step
from ...history.shards import ShardItem, Shards
from ...protocol.cursor import EARLIEST, Cursor, parse
from ...protocol.entry import Entry
from ..common import entry_fields
from .news import Disconnected, Heartbeat, Missed, News, Opened, Received

#: At most how many items from the link wait in the queue. When the queue is full, the link is not read.
MAX_WAITING = 1000


class ChannelSource:
    """Follows channels that lie on one shard. A thread calls `run`; any thread may call the other methods.

    After the link to the broker broke, reads the events since its cursor, as a client that reconnects does.

    :param since: the cursor after which to start; `earliest`; or empty to start with the next event.
    :param last: without `since`, start with this many of the newest events; 0 for none.
    :param report: called with each piece of news, by the thread of `run`. May block.
    """

    def __init__(
        self,
        broker: Broker,
        channels: Sequence[str],
        since: str,
        last: int,
        settings: Settings,
        report: Callable[[News], None],
    ) -> None:
        self._channels = tuple(dict.fromkeys(channels))
        self._report = report
        self._items: queue.Queue[ShardItem] = queue.Queue(MAX_WAITING)
        self._shards = Shards(broker.shards, f"tail-{secrets.token_hex(4)}", self._items.put, settings)
        self._history_cache = self._shards.placement(self._channels).history_cache
        self._start = StartPoint(since or None, last or None)
        self._recovery: Recovery | None = self._shards.recovery(self._channels, self._start)
        self._last_id = 0  # id of the newest event reported in this epoch
        self._opened = False  # whether `Opened` was reported since the link was last lost
        self._closed = False

    def run(self) -> None:
        """Follows the channels until `close` is called. Blocks."""
        shard = self._shards.all[self._history_cache.number]
        self._shards.enter(self._channels)
        for body in (shard.reader.run, shard.fetcher.run):
            threading.Thread(target=body, daemon=True).start()
        while not self._closed:
            _, item = self._items.get()
            self._take(item)

    def _take(self, item: Item) -> None:
        dispatch = self._history_cache.take([item])
        if item is None and not self._closed:
            self._report(Disconnected("the link to the broker broke", 0.0))
            if self._opened:
                self._opened = False
                self._recover_from(self._start)
        if isinstance(item, list) and any(isinstance(message, Echo) for message in item):
            self._report(Heartbeat())
        if self._recovery is None and (self._history_cache.paused or dispatch.lost or dispatch.new_epoch):
            self._recover_from(self._start)
        if self._recovery is None:
            self._report_entries([entry for _, entry in dispatch.entries])
            self._start = self._here()
        elif not self._history_cache.paused:
            self._recover(self._recovery)

    def _recover_from(self, start: StartPoint) -> Recovery:
        self._recovery = self._shards.recovery(self._channels, start)
        return self._recovery

    def _recover(self, recovery: Recovery) -> None:
        while (step := recovery.next()) is not None:
            restart = self._report_step(step)
            if restart is not None:
                recovery = self._recover_from(restart)
            elif step.is_complete:
                self._recovery = None
                self._start = self._here()
                return
            else:
                position = recovery.positions[self._history_cache.number]
                self._start = StartPoint(str(Cursor(self._history_cache.announced.epoch, position)))

    def _here(self) -> StartPoint:
        """Returns the start point after all dispatched events. The next recovery starts there."""
        return StartPoint(str(self._history_cache.stream_cursor(self._last_id)))

    def _report_step(self, step: Step) -> StartPoint | None:
        """Reports one step of a recovery: that the stream is open, and its resets and events.

        Returns where to start a new recovery if the broker has events that this recovery leaves out.
        """
        if step.opening is not None and not self._opened:
            self._opened = True
            self._report(Opened(step.opening.resumed, self._channels))
        for reset in step.resets:
            given = parse(self._start.cursor or "")
            self._report(Missed(self._reason(reset, given)))
            if reset.reason != "cursor":
                return self._restart(reset, given)
        self._report_entries(step.chunk.entries)
        return None

    def _reason(self, reset: Reset, given: Cursor | None) -> str:
        if reset.reason == "history":
            return f"{', '.join(reset.channels)}: the broker no longer has the missed events"
        if reset.reason == "cursor":
            return "no event has this cursor yet" if given else "the cursor did not come from this app"
        if given is not None and given.epoch in self._history_cache.announced.lineage:
            return "a failover of the broker lost events"
        return "the broker lost its data, or the cursor came from another broker"

    def _restart(self, reset: Reset, given: Cursor | None) -> StartPoint:
        """Returns the start point for all events that the broker still has.

        After a reset, a stream of a worker continues with new events only. A user of `tail` wants to see all
        events that are left.
        """
        lineage = self._history_cache.announced.lineage
        if reset.reason == "history":
            self._last_id = max(self._last_id, given.id if given else 0)
        elif given is not None and given.epoch in lineage:
            self._last_id = lineage[given.epoch]
            return StartPoint(str(Cursor(given.epoch, self._last_id)))
        else:
            self._last_id = 0
        return StartPoint(EARLIEST)

    def _report_entries(self, entries: Iterable[Entry]) -> None:
        """Reports entries in their order. Reports an entry once, even if it is on several of the channels."""
        for entry in entries:
            if entry.id > self._last_id:
                self._last_id = entry.id
                event = entry_fields(entry)
                channel = next(name for name in entry.channels if name in self._channels)
                at = entry.id / 1e6
                self._report(Received(event["type"], event["data"], event["id"], channel, at))

    def cut(self, why: str) -> None:
        """Does nothing: the link reader renews a dead link."""

    def close(self) -> None:
        """Makes `run` return soon. May be called twice."""
        self._closed = True
        self._shards.close()
        with contextlib.suppress(queue.Full):  # a full queue has woken `run` already
            self._items.put_nowait((self._history_cache.number, []))
