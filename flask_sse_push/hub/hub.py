"""The hub: all open streams of one worker.

Three kinds of threads (greenlets on a gevent worker) serve them. For each shard, the thread of the link
receives events and the thread of the fetcher reads history. The dispatcher is the only thread that writes to
streams. One lock guards all state. No thread holds it during I/O.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..brokers.base import Broker
from ..config import Settings
from ..errors import BrokerUnavailable
from ..history.shards import Shards
from ..protocol.command import COMMAND_CHANNEL
from ..protocol.shard_cursor import StreamCursor
from .batches import BatchPolicy
from .channel_changes import ChannelChanges
from .commands import Commands, Effect
from .counters import Counters, Gauges
from .disconnect import Disconnector
from .dispatcher import Dispatcher, Inbox
from .fanout import Fanout
from .listener import Listeners, StreamListener
from .opening import StreamOpener
from .shutdown import open_streams
from .state import HubState
from .stream import Stream

#: Seconds that the first link of a worker may take before `gauges` reports that there is none.
FIRST_LINK = 2.0
#: Seconds between two looks at whether the worker receives commands.
HEAR_STEP = 0.005


class Hub:
    """All streams of one worker. Starts its threads with the first stream. `close` may be called twice.

    :param stopping: whether the worker is about to stop.
    :param clock: monotonic seconds, for heartbeats and batches.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        listeners: Iterable[StreamListener] = (),
        clock: Callable[[], float] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._clock = clock or time.monotonic
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}
        self._listeners = Listeners(listeners)
        self._inbox = Inbox()
        self._shards = Shards(broker.shards, secrets.token_hex(6), self._inbox.put, settings)
        first = self._shards.all[0]  # the shard of the commands
        self._history_cache, self._reader = first.history_cache, first.reader
        batching = BatchPolicy(settings.batch_ms)
        self._fanout = Fanout(self._shards, batching, self._clock)
        self._channel_changes = ChannelChanges(
            self._shards,
            settings.max_channels,
            clock=self._clock,
            move=self._fanout.move,
            changed=self._listeners.tell_changed,
        )
        #: The handlers of commands.
        self.commands = Commands()
        state = HubState(
            settings,
            self._clock,
            self._lock,
            self._streams,
            self._shards,
            self._fanout,
            self._channel_changes,
            self.commands,
            self._listeners,
            counters or Counters(),
        )
        self._dispatcher = Dispatcher(state, self._inbox, stopping)
        #: Finds streams, closes them, and removes channels from them.
        self.disconnector = Disconnector(state, self._dispatcher.deliver)
        #: Brings a new stream to the live position; see `StreamOpener`.
        self.follow = StreamOpener(state, batching).follow
        #: The recovery of a stream of some channels; for `follow`.
        self.recovery = self._shards.recovery
        self._started = False

    # -- streams: called by their own threads -----------------------------------------------------------

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: Stream) -> bool:
        return self._streams.get(stream.connection) is stream

    def open(self, stream: Stream) -> None:
        """Adds a stream to the open ones. `leave` must follow."""
        if not self._started:
            self._start()
        now = self._clock()
        with self._lock:
            stream.written_at, stream.opened_at = now, time.time_ns() / 1e9
            first = not self._streams
            if first:
                self._shards.enter((COMMAND_CHANNEL,), after=0)  # with the whole history of commands
            self._streams[stream.connection] = stream
            self._dispatcher.maintenance.add(stream, now)
            self._shards.enter(stream.subscribed)
        if first:
            for first_opened in self._listeners.first_opened:
                first_opened()
        for opened in self._listeners.opened:
            opened(stream)
        if stream.grant is not None:
            for opened_with_grant in self._listeners.opened_with_grant:
                opened_with_grant(stream)

    def leave(self, stream: Stream) -> None:
        """Removes a stream that has closed."""
        now = self._clock()
        with self._lock:
            if self._streams.pop(stream.connection, None) is None:
                return
            self._fanout.remove(stream)
            self._channel_changes.forget(stream)
            self._shards.exit(stream.subscribed, now)
            if not self._streams:
                self._shards.exit((COMMAND_CHANNEL,), now)
        for closed in self._listeners.closed:
            closed(stream)

    def streams(self, *, user_id: str | None = None, channel: str | None = None) -> list[Stream]:
        """The open streams of a user, with a channel, or both. Any thread may call."""
        with self._lock:
            return self.disconnector.find(user_id=user_id, channel=channel)

    def _start(self) -> None:
        with self._lock:
            first, self._started = not self._started, True
        if first:  # without the lock: starting a thread may switch to another one
            open_streams.append(self.__len__)
            bodies = [("hub", self._dispatcher.run)]
            for shard in self._shards.all:
                bodies += [("reader", shard.reader.run), ("fetcher", shard.fetcher.run)]
            for name, body in bodies:
                threading.Thread(target=body, name=f"flask-sse-push-{name}", daemon=True).start()

    # -- commands without streams -----------------------------------------------------------------------

    def hear_commands(self, timeout: float) -> None:
        """Makes this worker receive commands even without streams, until `stop_hearing_commands`.

        Blocks until it receives every command that is published from then on.

        :raises BrokerUnavailable: if that takes more than `timeout` seconds.
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
            time.sleep(HEAR_STEP)

    def stop_hearing_commands(self) -> None:
        """Undoes one call of `hear_commands`."""
        with self._lock:
            self._shards.exit((COMMAND_CHANNEL,), self._clock())

    def call_soon(self, handler: Callable[[], Iterable[Effect]]) -> None:
        """Queues `handler` to run on the dispatcher's thread, under the lock, as handlers of commands do. Any
        thread may call. Does nothing in a worker that has had no streams."""
        if self._started:
            self._dispatcher.call_soon(handler)

    # -- the state of this worker -----------------------------------------------------------------------

    def position(self) -> StreamCursor | None:
        """Position up to which this worker has seen every event; None until it knows. Does not block."""
        with self._lock:
            return self._shards.position()

    def gauges(self) -> Gauges:
        """The state of this worker now. Looks at every stream."""
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
        """Whether streams miss events without a link. The first link of a worker may take `FIRST_LINK`."""
        patience = 0.0 if heard_at else FIRST_LINK
        return any(time.time() - stream.opened_at >= patience for stream in streams)

    def stats(self) -> dict[str, Any]:
        """Counts of this worker, and seconds since it received something from the broker.

        `heard_ago` counts from the last message of any kind, `probed_ago` from the last echo of a probe. With
        several shards, each is the longest of all.
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
        """Ends all threads and closes all streams."""
        self._shards.close()
        self._dispatcher.close()
        if self.__len__ in open_streams:
            open_streams.remove(self.__len__)
