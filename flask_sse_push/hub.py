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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from . import rooms
from .batching import Batching, Waiting
from .brokers.base import Broker, Entry
from .config import Settings
from .control import CONTROL, Act, Commands
from .cursor import Cursor
from .drain import Drain, close_frame, open_streams
from .errors import BrokerUnavailable
from .fetcher import Fetcher
from .figures import Figures, Levels
from .group import BatchingGroup, Chunks, Delivery, Group, frames_for
from .heartbeat import Heartbeats, HeartbeatWheel, silent_since
from .http_encoding import Windows
from .observer import Observer
from .reader import Reader
from .replica import Replica
from .resume import Opening, Resume, reset_frame, reset_of
from .rooms import Rooms
from .sink import Sink
from .timeline import Dispatch, Item, Timeline
from .wire import control

logger = logging.getLogger(__name__)

#: Reads that wait for the dispatcher; when it is full, the reader stops reading.
MAX_INBOX = 1000
#: Sinks served before other threads get a turn.
MAX_RUN = 500
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
        self._inbox: queue.Queue[Item] = queue.Queue(MAX_INBOX)
        name = secrets.token_hex(6)
        self._reader = Reader(broker, name, self._inbox.put, silence=2 * settings.probe)
        self._fetcher = Fetcher(
            broker, name, self._inbox.put, settings.probe, expect_echo=self._reader.expect_echo
        )
        self._lock = threading.Lock()
        self._timeline = Timeline(self._fetcher, settings.history_size, settings.replica_bytes)
        self._groups: dict[Hashable, Group] = {}
        self._batching = Batching(settings.batch_ms)
        self._waiting = Waiting()  # groups whose batch is not due yet
        self._windows = Windows()
        self._sealed: list[Delivery] = []  # batches that a stream's joining ended, still to be written
        self._sinks: dict[str, Sink] = {}
        self._wheel = HeartbeatWheel(settings.heartbeat)
        self._heartbeats = Heartbeats()
        self._drain = Drain(settings.drain, settings.retry, stopping)
        #: What this worker does when it is told to; see `control`.
        self.commands = Commands()
        self.commands.on("disconnect", self._disconnect)
        self._errands: deque[Callable[[], Iterable[Act]]] = deque()
        self._rooms = Rooms(
            self._timeline,
            settings.max_channels,
            enter=self._enter,
            leave=lambda name: self._timeline.exit(name, self._clock()),
            move=self._move,
            changed=self._observer.changed,
        )
        self.commands.on("channels", self._change_channels)
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
                self._enter(CONTROL)
            self._sinks[sink.connection] = sink
            self._wheel.add(sink, now)
            for name in sink.subscribed:
                self._enter(name)
        self._observer.opened(sink)

    def _enter(self, name: str) -> None:
        if self._timeline.enter(name):
            self._reader.subscribe([name])

    def leave(self, sink: Sink) -> None:
        """Forgets a stream."""
        now = self._clock()
        with self._lock:
            if self._sinks.pop(sink.connection, None) is None:
                return
            self._part(sink)
            self._rooms.forget(sink)
            for name in sink.subscribed:
                self._timeline.exit(name, now)
            if not self._sinks:
                self._timeline.exit(CONTROL, now)
        self._observer.closed(sink)

    def _part(self, sink: Sink) -> None:
        """Takes `sink` out of the fan-out."""
        group = sink.group
        if group is not None:
            group.remove(sink)
            if not group.sinks:
                self._drop(group)

    def follow(self, sink: Sink, resume: Resume, timeout: float) -> bytes | None:
        """The next frames that the stream missed; None once it has joined its group.

        The look for missed events and the join are one step under the lock: nothing fits in between.

        :returns: b"" when the broker could not be asked within `timeout` seconds, and when it is ending.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                if sink.dismissed:
                    break
                if self._timeline.ready and resume.is_served(self._timeline.moment()):
                    self._join(sink, resume)
                    return None
                if not self._timeline.blocks(resume):
                    return self._advance(sink, resume)
            self._reader.poke()
            if not resume.wait(deadline - time.monotonic()):
                return b""
        resume.wait(deadline - time.monotonic())
        return b""

    def _advance(self, sink: Sink, resume: Resume) -> bytes | None:
        replicas, moment = self._timeline.replicas, self._timeline.moment()
        notices = b""
        if resume.at is None:
            opening, reset = resume.begin(replicas, moment)
            sink.began = resume.at or 0
            notices = self._open_frame(sink, opening)
        else:
            reset = resume.reset(replicas, moment)
        if reset is not None:
            sink.began = resume.at or 0 if reset.cursor else sink.began
            notices += reset_frame(reset)
            self._observer.lost(sink)
        batched = self._batching.waits(sink.subscribed, sink.wait) is not None
        entries = resume.take(replicas, moment)
        missed = notices + frames_for(sink, entries, batched=batched)
        if not missed:
            self._join(sink, resume)
            return None
        if entries:
            self._figures.replayed(len(entries), len(missed))
        sink.events += sum(not sink.is_excluded(entry.exclude) for entry in entries)
        sink.bytes += len(missed)
        return missed

    def _open_frame(self, sink: Sink, opening: Opening) -> bytes:
        data: dict[str, Any] = {
            "connection": sink.connection,
            "channels": sink.channels,
            "resumed": opening.resumed,
            "heartbeat": self._settings.heartbeat,
        }
        if sink.secret is not None:
            data["secret"], sink.secret = sink.secret, None  # told once: not kept for each stream
        return control("sse.open", data, opening.cursor)

    def _join(self, sink: Sink, resume: Resume) -> None:
        sink.join()
        sink.touched = self._clock()
        self._enlist(sink, sink.subscribed, resume.at or 0)

    def _enlist(self, sink: Sink, channels: tuple[str, ...], last: int) -> None:
        """Lets a stream that has everything up to `last` take part in the fan-out of `channels`."""
        waits = self._batching.waits(channels, sink.wait)
        encoding = sink.tagged, sink.coding is not None, waits and frozenset(waits.items())
        key = type(sink), frozenset(channels), encoding
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = self._group(sink, channels, waits)
            group.key = key
            group.last = last
            for name in group.channels:
                self._timeline.replicas[name].groups.append(group)
        elif group.pending:  # the newcomer has had what waits there: it goes to the others alone
            self._sealed += group.flush(self._clock(), {})
        group.add(sink)

    def _move(self, sink: Sink, channels: tuple[str, ...], last: int) -> list[Delivery]:
        """Has a stream change its group; returns what waited in batches, to be written in this place."""
        sealed = self._flushed([sink.group])
        self._part(sink)
        self._enlist(sink, channels, last)
        return [*sealed, *self._flushed([])]

    def _group(self, sink: Sink, channels: tuple[str, ...], waits: Mapping[str, float] | None) -> Group:
        windows = self._windows if sink.coding is not None else None
        if waits is None:
            return Group(channels, type(sink), sink.tagged, windows)
        by_replica = {self._timeline.replicas[name]: wait for name, wait in waits.items()}
        return BatchingGroup(channels, type(sink), sink.tagged, windows, by_replica, self._waiting)

    def _drop(self, group: Group) -> None:
        del self._groups[group.key]
        if group.cohort is not None:
            group.cohort.close()
        for name in group.channels:
            self._timeline.replicas[name].groups.remove(group)

    # -- the dispatcher ---------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            first, self._started = not self._started, True
        if first:  # not under the lock: starting a thread may switch to another
            open_streams.append(self.__len__)
            bodies = {"reader": self._reader.run, "fetcher": self._fetcher.run, "hub": self._run}
            for name, body in bodies.items():
                threading.Thread(target=body, name=f"flask-sse-push-{name}", daemon=True).start()

    def _run(self) -> None:
        while not self._closed:
            try:
                items = self._arrived()
                if items or self._rooms or self._waiting.is_due(self._clock()):
                    self._deliver(self._dispatch(items))
                if self._errands:
                    self._run_errands()
                self._tick(self._clock())
            except Exception:
                # A defect must not lose events: who may have missed a chunk resumes from its cursor.
                logger.exception("the dispatcher failed; sending all streams away to resume")
                self._send_all_away("error")

    def _arrived(self) -> list[Item]:
        """Everything that waits; the busier the worker, the more goes into one chunk."""
        items: list[Item] = []
        try:
            patience = self._waiting.timeout(self._clock(), self._wheel.slot)
            items.append(self._inbox.get(timeout=patience))
            if self._settings.coalesce:
                time.sleep(self._settings.coalesce)
            while len(items) < MAX_INBOX:
                items.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return items

    def _dispatch(self, items: list[Item]) -> list[Delivery | Act]:
        """What is to be done for what arrived, in this order: chunks to write, and acts commanded."""
        with self._lock:
            dispatch = self._timeline.take(items)
            notices = self._reset_notices(dispatch) if dispatch.new_epoch or dispatch.lost else {}
            if dispatch.new_epoch:
                self._begin_epoch(self._timeline.moment().base)
            if dispatch.new_epoch or CONTROL in dispatch.lost:
                self.commands.lost()
            steps: list[Delivery | Act] = [*self._flushed(notices)]
            for entries, command in self.commands.pieces(
                self._timeline.replicas.get(CONTROL), dispatch.entries
            ):
                steps += self._deliveries(entries, notices)
                notices = {}
                if command is not None:
                    steps += self.commands.obey(command)
            now, made = self._clock(), Chunks()
            for group in self._waiting.take(now):
                steps += group.deliveries(now, made)
            if self._rooms:
                # In the order in which they were put together: checksums of compressed streams rest on it.
                steps += [*self._flushed([]), *self._rooms.advance(), self._reader.poke]
            return steps

    def _begin_epoch(self, base: int) -> None:
        """What streams have had is told in positions of the epoch."""
        self._rooms.begin_epoch()
        for sink in self._sinks.values():
            sink.began = base

    def _flushed(self, groups: Iterable[Group | None]) -> list[Delivery]:
        """What is sealed, and what waits in `groups` for a batch: both must go before what follows."""
        sealed, self._sealed = self._sealed, []
        now, made = self._clock(), Chunks()
        for group in groups:
            if group is not None and group.pending:
                sealed += group.flush(now, made)
        return sealed

    def _deliveries(
        self, entries: Iterable[tuple[Replica, Entry]], notices: Mapping[Group, bytes]
    ) -> list[Delivery]:
        touched = list(notices)
        for replica, entry in entries:
            for group in replica.groups:
                if group.offer(entry, replica) and group not in notices:
                    touched.append(group)
        now, made = self._clock(), Chunks()
        return [each for group in touched for each in group.deliveries(now, made, notices.get(group, b""))]

    def _reset_notices(self, dispatch: Dispatch) -> dict[Group, bytes]:
        """What each group must be told of lost events."""
        moment = self._timeline.moment()
        cursor = Cursor(moment.epoch, moment.base)
        notices = {}
        for group in self._groups.values():
            lost = [name for name in dispatch.lost if name in group.channels]
            notice = b""
            if dispatch.new_epoch:
                group.last = moment.base
                notice += reset_frame(reset_of(list(group.channels), group.channels, "epoch", cursor))
            if lost:
                notice += reset_frame(reset_of(lost, group.channels, "history", None))
            if notice:
                notices[group] = notice
        return notices

    def _deliver(self, steps: Sequence[Delivery | Act]) -> None:
        """Writes chunks out, without the lock: a sink that leaves meanwhile ignores what comes."""
        served = 0
        for delivery in steps:
            if not isinstance(delivery, Delivery):
                delivery()
                continue
            self._figures.delivered += delivery.events * len(delivery.sinks)
            self._figures.sent += len(delivery.chunk) * len(delivery.sinks)
            if delivery.notice:
                for sink in delivery.sinks:
                    self._observer.lost(sink)
            for at in range(0, len(delivery.sinks), MAX_RUN):
                run = delivery.sinks[at : at + MAX_RUN]
                delivery.write(run)
                served += len(run)
                if served >= MAX_RUN:
                    served = 0
                    time.sleep(0)

    # -- commands without streams -----------------------------------------------------------------------

    def attend(self, timeout: float) -> None:
        """Hears commands until `unattend`, without streams too. Blocks until every later one will be heard.

        :raises BrokerUnavailable: when that is not so within `timeout` seconds.
        """
        if not self._started:
            self._start()
        deadline = time.monotonic() + timeout
        with self._lock:
            self._enter(CONTROL)
        while not self._timeline.replicas[CONTROL].live:
            if time.monotonic() > deadline:
                self.unattend()
                raise BrokerUnavailable(f"this worker does not hear commands after {timeout} s")
            self._reader.poke()
            time.sleep(ATTEND_STEP)

    def unattend(self) -> None:
        """Takes back an `attend`."""
        with self._lock:
            self._timeline.exit(CONTROL, self._clock())

    # -- commands: called under the lock, at the command's place in the order of events -----------------

    def matching(
        self, *, user_id: str | None = None, connection: str | None = None, channel: str | None = None
    ) -> list[Sink]:
        """The streams that meet all that is given. The caller holds the lock, as handlers of commands do."""
        found: Iterable[Sink] = self._sinks.values()
        if connection is not None:
            found = [self._sinks[connection]] if connection in self._sinks else []
        if user_id is not None:
            found = [sink for sink in found if sink.user_id == user_id]
        return [sink for sink in found if channel is None or channel in sink.subscribed]

    def streams(self, *, user_id: str | None = None, channel: str | None = None) -> list[Sink]:
        """The streams of this moment that meet what is given. Any thread may call."""
        with self._lock:
            return self.matching(user_id=user_id, channel=channel)

    def dismiss(
        self, sinks: Iterable[Sink], reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> list[Act]:
        """Lets no later event reach `sinks`; the acts that end them, after `notice`. The caller holds the
        lock."""
        sinks = list(sinks)
        acts = self._flushing(sinks)
        for sink in sinks:
            sink.dismissed = True
            sink.reason = reason
            self._part(sink)
            frame = notice + close_frame(reason, reconnect=reconnect, retry=self._settings.retry)
            acts.append(partial(sink.end, frame))
        return acts

    def withdraw(self, sink: Sink, channels: Iterable[str], reason: str, notice: bytes) -> list[Act]:
        """Lets no later event of `channels` reach `sink`, which keeps its others; the acts that tell it by
        `notice`. One that has no others is ended. The caller holds the lock.
        """
        wanted = frozenset(channels)
        gone = tuple(name for name in sink.channels if name in wanted)
        left = tuple(name for name in sink.subscribed if name not in wanted)
        group = sink.group
        sink.vouched -= wanted
        joining = self._rooms.is_joining(sink, wanted)
        if sink.dismissed or not (gone or joining):
            return []
        if len(left) == 1 or group is None or joining:  # who is under way begins again, with what is left
            return self.dismiss([sink], reason, reconnect=len(left) > 1, notice=notice)
        acts = self._flushing([sink])
        self._part(sink)
        self._enlist(sink, left, group.last)
        acts += self._flushing([])
        now = self._clock()
        for name in gone:
            self._timeline.exit(name, now)
            self._rooms.note_left(sink, name, group.last)
        acts.append(partial(sink.write, sink.own(notice)))
        acts.append(partial(self._observer.changed, sink, (), gone))
        return acts

    def _flushing(self, sinks: Iterable[Sink]) -> list[Act]:
        """The act that writes what waits, for the groups of `sinks` too; none when nothing does."""
        flushed = self._flushed([sink.group for sink in sinks])
        return [partial(self._deliver, flushed)] if flushed else []

    def errand(self, handler: Callable[[], Iterable[Act]]) -> None:
        """Has the dispatcher call `handler` as it does handlers of commands, soon. Any thread may call."""
        if self._started:  # else there are no streams
            self._errands.append(handler)
            with contextlib.suppress(queue.Full):  # then the dispatcher is awake
                self._inbox.put_nowait([])

    def _run_errands(self) -> None:
        acts: list[Act] = []
        with self._lock:
            while self._errands:
                acts += self._errands.popleft()()
        self._deliver(acts)

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Act]:
        wanted = {key: arguments[key] for key in ("user_id", "connection", "channel") if arguments.get(key)}
        return self.dismiss(self.matching(**wanted), "disconnected", reconnect=bool(arguments["reconnect"]))

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Act]:
        for sink in self.matching(connection=arguments["connection"]):
            if arguments.get("vouched"):
                sink.vouched |= frozenset(arguments["join"])
            start = rooms.start_of(arguments)
            self._rooms.add(rooms.Change(sink, arguments["join"], arguments["leave"], start))
        return []

    def _tick(self, now: float) -> None:
        if self._sinks or self._timeline.idle:
            with self._lock:
                leaving = self._drain.due(list(self._sinks.values()), now) if self._drain.wanted() else ()
                due = self._wheel.turn(now)
                self._reader.unsubscribe(self._timeline.forget_idle(now - self._settings.linger))
            due = [sink for sink in due if self._sinks.get(sink.connection) is sink]
            if self._waiting or self._sealed:
                silent = [sink for sink in due if self._wheel.silent_for(sink, now)]
                with self._lock:
                    flushed = self._flushed([sink.group for sink in (*leaving, *silent)])
                self._deliver(flushed)
            for sink in leaving:
                sink.reason = sink.reason or "drain"
                sink.end(self._drain.frame())
            for sink in due:
                self._look_after(sink, now)
            with self._lock:
                for sink in due:
                    self._wheel.add(sink, silent_since(sink) if sink.group else now)

    def _look_after(self, sink: Sink, now: float) -> None:
        group = sink.group
        if sink.is_stuck(now):
            logger.info("cutting stream %s: its client takes nothing", sink.connection)
            sink.reason = "stuck"
            sink.cut()
        elif group is not None and self._wheel.silent_for(sink, now):
            sink.touched = now
            beat = self._heartbeat(sink, group)
            sink.bytes += len(beat)
            sink.write(beat)

    def _heartbeat(self, sink: Sink, group: Group) -> bytes:
        if sink.coding is None:
            return self._heartbeats.chunk(group, self._timeline.told())
        with self._lock:
            return sink.own(self._heartbeats.frame(group, self._timeline.told()))

    def position(self) -> Cursor | None:
        """How far this worker has provably seen; None before it knows. Does not block."""
        with self._lock:
            if not self._timeline.ready:
                return None
            moment = self._timeline.moment()
        return Cursor(moment.epoch, moment.position)

    def levels(self) -> Levels:
        """How things stand now. Costs a look at every stream."""
        streams = list(self._sinks.values())
        reader = self._reader
        return Levels(
            streams=len(streams),
            buffered=sum([sink.buffered for sink in streams]),
            deaf=int(bool(streams) and not reader.connected),
            reconnects=max(0, reader.reconnects),
            probe=reader.probe_seconds,
        )

    def stats(self) -> dict[str, Any]:
        """Figures of this worker: counts, and seconds since the broker was last heard.

        `heard_ago` counts from the last signal of any kind, `probed_ago` from the last probe that came back.
        """
        now, heard, proved = time.monotonic(), self._reader.heard_at, self._reader.proved_at
        return {
            "streams": len(self._sinks),
            "groups": len(self._groups),
            "channels": len(self._timeline.replicas),
            "connected": self._reader.connected,
            "heard_ago": round(now - heard, 3) if heard else None,
            "probed_ago": round(now - proved, 3) if proved else None,
            "reconnects": max(0, self._reader.reconnects),
            "history_calls": self._fetcher.calls,
        }

    def close(self) -> None:
        """Ends all streams and threads."""
        self._closed = True
        self._reader.close()
        self._fetcher.close()
        self._send_all_away("closed")
        if self.__len__ in open_streams:
            open_streams.remove(self.__len__)

    def _send_all_away(self, reason: str) -> None:
        for sink in list(self._sinks.values()):
            sink.reason = sink.reason or reason
            if sink.coding is not None:
                sink.coding.whole = False  # what was made for it may not have been written
            sink.end(close_frame(reason, reconnect=True, retry=self._settings.retry))
