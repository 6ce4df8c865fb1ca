"""The hub: all open streams of one worker.

The hub has three kinds of threads (greenlets on a gevent worker). For each shard, a link reader receives
events and a history fetcher reads history. The dispatcher writes to the streams; a link reader may do so
while it has the dispatcher's turn. One lock guards all state of the hub. No thread holds it during I/O.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..brokers import forks, native_threads
from ..brokers.base import Broker
from ..config import Settings
from ..errors import BrokerUnavailable
from ..history.joining import Joining
from ..history.shards import Shards
from ..protocol.command import COMMAND_CHANNEL
from ..protocol.shard_cursor import StreamCursor
from . import background
from .batches import BatchPolicy
from .channel_changes import ChannelChanges
from .commands import Commands, Effect
from .counters import Counters, Gauges
from .disconnect import Disconnector
from .dispatcher import Dispatcher
from .drain import open_streams
from .fanout import Fanout
from .inbox import Inbox
from .listener import Listeners, StreamListener
from .opening import StreamOpener
from .state import HubState
from .stream import Stream

#: How many seconds a link may take to connect after the first stream has opened. After that time, `gauges`
#: reports the link as down.
FIRST_LINK = 2.0
#: Seconds between two checks of whether the worker receives commands yet.
HEAR_STEP = 0.005


class Hub:
    """All open streams of one worker. The first stream starts the hub's threads. `close` may be called twice.

    :param stopping: returns whether the worker is about to stop.
    :param clock: returns monotonic seconds; used for heartbeats and batches.
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
        self._shards = Shards(broker.shards, secrets.token_hex(6), self._inbox.put, settings, declares=True)
        first = self._shards.all[0]  # commands are published on the first shard
        self._history_cache, self._reader = first.history_cache, first.reader
        batching = BatchPolicy(settings.policies)
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
        opener = StreamOpener(state, batching, self.disconnector)
        #: Sends a new stream the events that it missed; see `StreamOpener.follow`.
        self.follow = opener.follow
        #: See `StreamOpener.behind`.
        self.behind = opener.behind
        #: Returns the object that reads a stream's missed events, for `follow`; see `Shards.recovery`.
        self.recovery = self._shards.recovery
        self._started = False
        forks.watch(self)

    # -- methods that each stream's own thread calls ----------------------------------------------------

    def __len__(self) -> int:
        return len(self._streams)

    def unclosed(self) -> int:
        """Returns how many streams the process must wait for before it ends.

        Returns 0 after the drain: if a stream is still open then, no thread is left to send its last frame.
        """
        return 0 if self._dispatcher.maintenance.is_drained else len(self._streams)

    def __contains__(self, stream: Stream) -> bool:
        return self._streams.get(stream.connection) is stream

    def open(self, stream: Stream) -> None:
        """Adds a stream to the open streams. Call `leave` when the stream has closed, or if `open` raises."""
        if not self._started:
            self._start()
        now = self._clock()
        with self._lock:
            stream.written_at, stream.opened_at = now, time.time_ns() / 1e9
            first = not self._streams
            if first:
                self._shards.enter((COMMAND_CHANNEL,), after=0)  # 0: read the whole history of commands
            self._streams[stream.connection] = stream
            self._dispatcher.maintenance.add(stream, now)
            self._shards.enter(stream.subscribed)
            close = self.disconnector.revoke_from_new(stream) if stream.grant is not None else None
        if close is not None:
            close()
        if first:
            for first_opened in self._listeners.first_opened:
                first_opened()
        for opened in self._listeners.opened:
            opened(stream)
        if stream.grant is not None:
            for opened_with_grant in self._listeners.opened_with_grant:
                opened_with_grant(stream)

    def leave(self, stream: Stream) -> None:
        """Removes a stream that has closed, and gives back its reservation. May be called twice."""
        now = self._clock()
        if stream.reservation is not None:
            stream.reservation.release()
        with self._lock:
            if self._streams.pop(stream.connection, None) is None:
                return
            self.behind.discard(stream.connection)
            self._fanout.remove(stream)
            self._channel_changes.forget(stream)
            self._shards.exit(stream.subscribed, now)
            if not self._streams:
                self._shards.exit((COMMAND_CHANNEL,), now)
        self._listeners.tell_closed(stream)

    def streams(self, *, user_id: str | None = None, channel: str | None = None) -> list[Stream]:
        """Returns the open streams, or only those of one user or on one channel. Any thread may call."""
        return self.disconnector.find(user_id=user_id, channel=channel)

    def join_missed(self, joining: Joining) -> None:
        """Makes new streams get joined events in place of missed ones. Call it before the first stream."""
        self._shards.joining = joining

    def _start(self) -> None:
        native_threads.refuse_native()
        with self._lock:
            first, self._started = not self._started, True
        if first:  # without the lock: starting a thread may run another thread that needs the lock
            open_streams.append(self.unclosed)
            bodies = [("hub", self._dispatcher.run)]
            for shard in self._shards.all:
                bodies += [("reader", shard.reader.run), ("fetcher", shard.fetcher.run)]
            background.start_all(bodies)

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`."""
        for name in ("open", "leave", "follow"):
            setattr(self, name, forks.refuse)
        for stream in list(self._streams.values()):
            stream.after_fork()

    # -- commands in a worker without streams -----------------------------------------------------------

    def hear_commands(self, timeout: float) -> None:
        """Makes this worker receive commands even without streams, until `stop_hearing_commands`.

        Blocks until the worker has subscribed to commands. It receives every command published after that.

        :raises BrokerUnavailable: if the worker cannot receive commands within `timeout` seconds.
        """
        if not self._started:
            self._start()
        deadline = time.monotonic() + timeout
        with contextlib.ExitStack() as held:  # an interruption of the wait must not leave the channel entered
            with self._lock:
                self._shards.enter((COMMAND_CHANNEL,))
            held.callback(self.stop_hearing_commands)
            while not self._history_cache.caches[COMMAND_CHANNEL].live:
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"this worker still receives no commands after {timeout} s")
                self._reader.poke()
                time.sleep(HEAR_STEP)
            held.pop_all()

    def stop_hearing_commands(self) -> None:
        """Ends the effect of one call of `hear_commands`."""
        with self._lock:
            self._shards.exit((COMMAND_CHANNEL,), self._clock())

    def call_soon(self, handler: Callable[[], Iterable[Effect]]) -> None:
        """Queues `handler` to run on the dispatcher's thread, under the hub's lock, like a command's handler.

        Any thread may call. Does nothing in a worker that has never had a stream.
        """
        if self._started:
            self._dispatcher.call_soon(handler)

    # -- the state of this worker -----------------------------------------------------------------------

    def position(self) -> StreamCursor | None:
        """Returns the position up to which this worker has seen every event.

        Returns None until each shard has replied once, and while a new epoch begins.
        """
        with self._lock:
            return self._shards.position()

    def cursor_of(self, stream: Stream) -> StreamCursor | None:
        """Returns the cursor up to which a stream has every event; None while it still gets missed events."""
        with self._lock:
            return None if stream.group is None else stream.group.cursor()

    def gauges(self) -> Gauges:
        """Returns the current state of this worker. Takes longer with more streams."""
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
        """Whether a stream has lost its link, or has waited `FIRST_LINK` seconds for its first one."""
        silent = time.monotonic() - heard_at if heard_at else math.inf
        return any(time.time() - stream.opened_at >= min(FIRST_LINK, silent) for stream in streams)

    def stats(self) -> dict[str, Any]:
        """Returns counts of this worker, the state of its links, and how long ago messages arrived.

        `heard_ago` is the number of seconds since the last message of any kind, `probed_ago` since the last
        echo of a probe. With several shards, each number is that of the shard with the longest time.
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
        """Closes all streams and makes all threads end soon."""
        self._shards.close()
        self._dispatcher.close()
        if self.unclosed in open_streams:
            open_streams.remove(self.unclosed)
