"""Streams that change their channels while they are open.

A stream stays in its group until everything that it asked for of the new channels is at hand and was handed
to it. Then, at a position that all groups of the worker have reached, it changes over in one step: its old
group has given it everything up to there, and its new one gives it everything after. So its cursor stays one
position for all its channels. What it missed of the new ones comes before that, as `sse.missed`, which moves
no cursor.

Called by the dispatcher under the hub's lock, at the end of a dispatch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import ErrorCode
from ..history.history_cache import HistoryCache
from ..history.position import Gap, Snapshot, StartPoint, reset_of
from ..history.recovery import Recovery, recovery_for
from ..history.recovery import start_on_one_shard as start_of_way
from ..history.shard_recovery import ChunkCache, ShardRecovery
from ..history.shards import Shards
from ..protocol.channel import BROADCAST
from ..protocol.cursor import MAX_LENGTH, Cursor
from ..protocol.entry import Entry
from ..protocol.frames import control_frame, error_frame, reset_frame
from .commands import Effect
from .group import Delivery
from .stream import Stream

#: Changes of one stream that may wait for the one under way.
MAX_WAITING = 100
#: Pieces of what it missed that a stream gets in one turn: others want to be served, too.
PIECES = 4
#: Bytes that may wait for a client before it gets no more of what it missed.
MAX_BUFFERED = 262_144


class ChannelChange:
    """New channels for one stream, and others that it leaves.

    :param start: from where the new channels' events are wanted.
    """

    __slots__ = ("join", "leave", "recovery", "shard_recovery", "start", "stream")

    def __init__(self, stream: Stream, join: Sequence[str], leave: Sequence[str], start: StartPoint) -> None:
        self.stream = stream
        self.join = tuple(dict.fromkeys(join))
        self.leave = frozenset(leave)
        self.start = start
        self.shard_recovery: ShardRecovery | None = None  # set when it has begun
        self.recovery: Recovery | None = None  # set instead when it takes several shards

    @property
    def channels(self) -> tuple[str, ...]:
        """What the stream will listen to."""
        kept = tuple(name for name in self.stream.channels if name not in self.leave)
        return (*kept, *self.join, BROADCAST)


class ReceivedEvents:
    """Which events a stream has had by channels that it joined after it began, or that it has left."""

    __slots__ = ("joined", "left")

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}  # channel -> the position after which the stream has its events
        self.left: tuple[tuple[str, int, int], ...] = ()  # channel, after, until; most streams have none

    def leave(self, name: str, began: int, until: int) -> None:
        """Notes that the stream has had the channel's events up to `until`."""
        self._had(name, self.joined.pop(name, began), until)

    def _had(self, name: str, after: int, until: int) -> None:
        self.left = (*self.left, (name, after, until))[-MAX_WAITING:]

    def skip(self, gap: Gap, began: int) -> None:
        """Notes that the stream has the channel, but for what is in the gap."""
        since = self.joined.get(gap.channel, began)
        if gap.until > since:
            self._had(gap.channel, since, gap.until)
        self.joined[gap.channel] = gap.after

    def has(self, entry: Entry, stream: Stream) -> bool:
        """Whether the event has come to the stream already, by whatever channel."""
        for name in entry.channels:
            if name in stream.subscribed and entry.id > self.joined.get(name, stream.began):
                return True
        return any(name in entry.channels and after < entry.id <= until for name, after, until in self.left)


class ChannelChanges:
    """The changes under way on one worker.

    :param clock: monotonic seconds.
    :param move: lets a stream take part in the fan-out of other channels, from a position on; returns what
        must be written before anything else.
    :param changed: is told, without the lock, of the channels that a stream has joined and left.
    """

    def __init__(
        self,
        shards: Shards,
        max_channels: int,
        *,
        clock: Callable[[], float],
        move: Callable[[Stream, tuple[str, ...], Mapping[int, int]], Sequence[Delivery]],
        changed: Callable[[Stream, tuple[str, ...], tuple[str, ...]], None],
    ) -> None:
        self._shards = shards
        self._max_channels = max_channels
        self._clock = clock
        self._move = move
        self._changed = changed
        self._changes: dict[
            str, deque[ChannelChange]
        ] = {}  # by connection; the first one of each is under way
        self._past: dict[str, ReceivedEvents] = {}  # of streams that have changed their channels

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, change: ChannelChange) -> None:
        """Queues a change. One too many is left out: no client asks that often."""
        waiting = self._changes.setdefault(change.stream.connection, deque())
        if len(waiting) < MAX_WAITING:
            waiting.append(change)

    def is_joining(self, stream: Stream, channels: Collection[str]) -> bool:
        """Whether a change that waits or is under way adds one of `channels`, or is set on what the stream
        has now."""
        waiting = self._changes.get(stream.connection, ())
        return any(name in channels for change in waiting for name in change.join) or any(
            change.recovery is not None for change in waiting
        )

    def note_left(self, stream: Stream, name: str, until: int) -> None:
        """Notes that the stream has had the channel's events up to `until`, and gets no more of them."""
        self._past.setdefault(stream.connection, ReceivedEvents()).leave(name, stream.began, until)

    def note_gaps(self, stream: Stream, shard_recovery: ShardRecovery) -> None:
        """Notes what the stream was not given of its channels, and takes that out of `resume`."""
        past = self._past.setdefault(stream.connection, ReceivedEvents())
        while shard_recovery.gaps:
            past.skip(shard_recovery.gaps.pop(), stream.began)

    def note_lost(self, gap: Gap, streams: Iterable[Stream]) -> None:
        """Notes what the streams that follow the channel have missed of it."""
        for stream in streams:
            if stream.group is not None and gap.channel in stream.group.channels:
                self._past.setdefault(stream.connection, ReceivedEvents()).skip(gap, stream.began)

    def begin_epoch(self, stream: Stream) -> None:
        """Forgets what a stream has had: positions of the old epoch mean nothing in the new one."""
        self._past.pop(stream.connection, None)

    def forget(self, stream: Stream) -> None:
        """Drops what was under way for a stream that has left."""
        self._past.pop(stream.connection, None)
        for change in self._changes.pop(stream.connection, ()):
            self._give_up(change)

    def advance(self) -> list[Delivery | Effect]:
        """Goes on with every change as far as it can; what is to be written."""
        effects: list[Delivery | Effect] = []
        for connection, waiting in list(self._changes.items()):
            while waiting and self._step(waiting[0], effects):
                waiting.popleft()
            if not waiting:
                del self._changes[connection]
        return effects

    # -- one change ---------------------------------------------------------------------------------------

    def _step(self, change: ChannelChange, effects: list[Delivery | Effect]) -> bool:
        """Goes on with a change; returns whether it is over."""
        stream = change.stream
        if stream.dismissed:
            self._give_up(change)
            return True
        if stream.group is None:  # still catching up, by its own thread
            return False
        if change.shard_recovery is None and change.recovery is None and not self._begin(change):
            effects.append(_writing(stream, self._too_many(change)))
            return True
        if change.recovery is not None:
            return self._go_over(change, change.recovery, effects)
        assert change.shard_recovery is not None
        shard = self._shards.placement(stream.subscribed).only
        for _ in range(PIECES):
            if self._is_served(change.shard_recovery, shard.history_cache):
                if shard.history_cache.is_even(change.shard_recovery):
                    self._change_over(change, shard.history_cache.snapshot(), effects)
                    return True
                return False
            if stream.buffered > MAX_BUFFERED or shard.history_cache.blocks(change.shard_recovery):
                return False
            frames = self._catch_up(change, change.shard_recovery, shard.history_cache)
            if frames:
                effects.append(_writing(stream, frames))
        return False

    def _begin(self, change: ChannelChange) -> bool:
        """Has the new channels subscribed; False when they are too many."""
        old = change.stream.channels
        change.join = tuple(name for name in change.join if name not in old and name not in change.leave)
        if len([name for name in old if name not in change.leave]) + len(change.join) > self._max_channels:
            return False
        before, after = (
            self._shards.placement(change.stream.subscribed),
            self._shards.placement(change.channels),
        )
        if before.is_sharded or before.parts.keys() != after.parts.keys():
            change.recovery = recovery_for(after, StartPoint())
            after.enter(after.channels)
        else:
            change.shard_recovery = ShardRecovery(change.join, start_of_way(after, change.start))
            self._shards.enter(change.join)
        return True

    def _give_up(self, change: ChannelChange) -> None:
        if change.recovery is not None:
            self._shards.exit(change.channels, self._clock())
        elif change.shard_recovery is not None:
            self._shards.exit(change.join, self._clock())

    @staticmethod
    def _is_served(shard_recovery: ShardRecovery, history_cache: HistoryCache) -> bool:
        return not shard_recovery.channels or (
            history_cache.ready and shard_recovery.is_served(history_cache.snapshot())
        )

    def _go_over(self, change: ChannelChange, recovery: Recovery, effects: list[Delivery | Effect]) -> bool:
        """Changes to channels on other shards, once they are all at hand; returns whether that is done.

        There is no order between shards, so what the stream has had of events that lie on several of them
        cannot be told in terms of its new channels: it is told to fetch its state anew.
        """
        for _ in range(PIECES):
            if recovery.is_served():
                if not recovery.is_even():
                    return False
                self._change_shards(change, effects)
                return True
            if recovery.blocks():
                return False
            recovery.step()
            recovery.take(ChunkCache())
        return False

    def _change_shards(self, change: ChannelChange, effects: list[Delivery | Effect]) -> None:
        stream, after = change.stream, self._shards.placement(change.channels)
        at = after.positions()
        left = tuple(name for name in stream.channels if name in change.leave)
        self._past.pop(stream.connection, None)
        before = stream.subscribed
        effects += self._move(stream, after.channels, at)
        self._shards.exit(before, self._clock())
        stream.began = 0 if after.is_sharded else at[after.only.number]
        data = {"channels": stream.channels, "joined": change.join, "left": left}
        frames = control_frame("sse.channels", data)
        if change.join or left:
            reset = reset_of(list(after.channels), after.channels, "channels", after.at(at))
            frames += reset_frame(*reset)
        effects.append(_writing(stream, frames))
        effects.append(partial(self._changed, stream, change.join, left))

    def _catch_up(
        self, change: ChannelChange, shard_recovery: ShardRecovery, history_cache: HistoryCache
    ) -> bytes:
        """The next frames about what the stream missed of its new channels."""
        caches, snapshot = history_cache.caches, history_cache.snapshot()
        begins = shard_recovery.at is None
        reset = (
            shard_recovery.begin(caches, snapshot)[1] if begins else shard_recovery.reset(caches, snapshot)
        )
        past = self._past.setdefault(change.stream.connection, ReceivedEvents())
        if begins or (reset is not None and reset.reason == "epoch"):
            past.joined.update(dict.fromkeys(change.join, shard_recovery.at or 0))
        self.note_gaps(change.stream, shard_recovery)
        frames = b"" if reset is None else reset_frame(reset.channels, reset.reason, None)
        taken = shard_recovery.take(caches, snapshot)
        if taken:
            stream = change.stream
            missed = [
                entry for entry in taken if not (stream.is_excluded(entry.exclude) or past.has(entry, stream))
            ]
            change.stream.events += len(missed)
            frames += _missed_frame(change, missed, Cursor(snapshot.epoch, taken[-1].id))
        return frames

    def _change_over(
        self, change: ChannelChange, snapshot: Snapshot, effects: list[Delivery | Effect]
    ) -> None:
        stream = change.stream
        left = tuple(name for name in stream.channels if name in change.leave)
        kept = tuple(name for name in stream.channels if name not in change.leave)
        channels = (*kept, *change.join)
        (number,) = self._shards.placement((*channels, BROADCAST)).parts
        effects += self._move(stream, (*channels, BROADCAST), {number: snapshot.position})
        self._shards.exit(left, self._clock())
        for name in left:
            self.note_left(stream, name, snapshot.position)
        data = {"channels": channels, "joined": change.join, "left": left}
        frame = control_frame("sse.channels", data, str(Cursor(snapshot.epoch, snapshot.position)))
        effects.append(_writing(stream, frame))
        effects.append(partial(self._changed, stream, change.join, left))

    def _too_many(self, change: ChannelChange) -> bytes:
        message = f"a stream listens to at most {self._max_channels} channels"
        return error_frame(ErrorCode.INVALID_FORMAT, message, {"join": list(change.join)})


def _writing(stream: Stream, frames: bytes) -> Effect:
    chunk = stream.own(frames)
    stream.bytes += len(chunk)
    return partial(stream.write, chunk)


def start_of_change(arguments: Mapping[str, Any]) -> StartPoint:
    """Where the new channels are to begin: after the cursor `since`, with the `last` newest, or now."""
    since, last = arguments.get("since"), arguments.get("last")
    if since:
        return StartPoint(since if len(since) <= MAX_LENGTH else "?")
    return StartPoint(newest=last)


def _missed_frame(change: ChannelChange, entries: Sequence[Entry], cursor: Cursor) -> bytes:
    """`sse.missed`: what came before the stream joined. A client that breaks off goes on from `cursor`."""
    shown = {*change.join, *change.stream.channels}
    events = [_message(entry, shown if change.stream.tagged else ()) for entry in entries]
    return control_frame("sse.missed", {"channels": change.join, "events": events, "cursor": str(cursor)})


def _message(entry: Entry, shown: Collection[str]) -> dict[str, Any]:
    """An event as `sse.batch` holds them; with those of its channels that are `shown`."""
    message: dict[str, Any] = {"type": "message", "data": "", "id": str(Cursor(entry.epoch, entry.id))}
    data = []
    for line in entry.frame.decode().split("\n"):
        field, _, value = line.partition(": ")
        if field == "data":
            data.append(value)
        elif field == "event":
            message["type"] = value
    message["data"] = "\n".join(data)
    if shown:
        message["channels"] = [name for name in entry.channels if name in shown]
    return message
