"""Channel changes: streams that join and leave channels while they are open.

A stream gets the missed events of its new channels as `sse.missed`, while it stays in its old group. Then
the stream moves to its new group in one step. The step waits for a position up to which the worker has
dispatched every event and after which it has dispatched no event. So the old group has delivered every event
up to this position, the new group delivers every event after it, and one cursor is right for all channels of
the stream. `sse.missed` comes before the step and does not change the client's cursor.

The dispatcher calls this module under the hub's lock, at the end of a dispatch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import ErrorCode
from ..history.position import Gap, StartPoint, reset_of
from ..history.recovery_driver import Recovery, ShardRecovery, Step
from ..history.sharded_recovery import start_points
from ..history.shards import Shards
from ..protocol import batch
from ..protocol.channel import BROADCAST
from ..protocol.cursor import MAX_LENGTH
from ..protocol.entry import Entry
from ..protocol.frames import control_frame, error_frame, reset_frame
from ..protocol.shard_cursor import Position, StreamCursor
from .commands import Effect
from .group import Delivery
from .received_events import ReceivedEvents
from .stream import Stream

#: At most how many channel changes of one stream are queued.
MAX_WAITING = 100
#: At most how many times one dispatch reads missed events for a stream, so that other streams do not wait.
MAX_STEPS = 4
#: A client gets no more missed events while more than this many bytes are buffered for it.
MAX_BUFFERED = 262_144


class ChannelChange:
    """The channels that one stream joins, and the channels that it leaves.

    :param start: where the client wants the events of the new channels to start.
    :param tab: which tab asked, such as `~k3x`; "" unless several tabs share the stream. The stream does
        not leave channels that a tab leaves, since the other tabs may still want these channels.
    :param vouched: whether the app itself made the change. Rechecks then skip the joined channels.
    :param notice: frames that the stream gets just before it has changed its channels.
    """

    __slots__ = (
        "asked",
        "join",
        "leave",
        "moves_shards",
        "notice",
        "recovery",
        "start",
        "stream",
        "tab",
        "vouched",
    )

    def __init__(
        self,
        stream: Stream,
        join: Sequence[str],
        leave: Sequence[str],
        start: StartPoint,
        tab: str = "",
        *,
        vouched: bool = False,
        notice: bytes = b"",
    ) -> None:
        self.stream = stream
        self.join = tuple(dict.fromkeys(join))
        self.leave = frozenset(() if tab else leave)
        self.asked = self.join, tuple(dict.fromkeys(leave))  # the channels to join, and those to leave
        self.tab = tab
        self.start = start
        self.vouched = vouched
        self.notice = notice
        self.recovery: Recovery | None = None  # reads the missed events; None until the change has begun
        self.moves_shards = False  # whether the stream was on several shards, or moves to other shards

    @property
    def channels(self) -> tuple[str, ...]:
        """The stream's channels after the change, the broadcast channel included."""
        kept = [name for name in self.stream.channels if name not in self.leave]
        return (*kept, *self.join, BROADCAST)


class ChannelChanges:
    """The channel changes under way on one worker.

    :param clock: returns monotonic seconds.
    :param max_channels: at most how many channels a stream may have.
    :param move: moves a stream to the group of its new channels, at a position; returns the deliveries that
        must be written first.
    :param changed: called after a change without the hub's lock. The arguments are the stream, the channels
        that it joined, and the channels that it left.
    """

    def __init__(
        self,
        shards: Shards,
        max_channels: int,
        *,
        clock: Callable[[], float],
        move: Callable[[Stream, tuple[str, ...], Position], Sequence[Delivery]],
        changed: Callable[[Stream, tuple[str, ...], tuple[str, ...]], None],
    ) -> None:
        self._shards = shards
        self._max_channels = max_channels
        self._clock = clock
        self._move = move
        self._changed = changed
        self.under_way: dict[str, deque[ChannelChange]] = {}  # by the id of the connection
        self._received: dict[str, ReceivedEvents] = {}  # by the id of the connection

    def add(self, change: ChannelChange) -> None:
        """Queues a change, or ignores it if `MAX_WAITING` changes of the stream are already queued."""
        waiting = self.under_way.setdefault(change.stream.connection, deque())
        if len(waiting) < MAX_WAITING:
            waiting.append(change)

    def is_joining(self, stream: Stream, channels: Collection[str]) -> bool:
        """Whether a change of the stream adds one of `channels` or moves the stream to other shards."""
        return any(
            change.moves_shards or any(name in channels for name in change.join)
            for change in self.under_way.get(stream.connection, ())
        )

    def advance(self) -> list[Delivery | Effect]:
        """Advances every change as far as possible now; returns the deliveries and effects."""
        effects: list[Delivery | Effect] = []
        for connection, waiting in list(self.under_way.items()):
            while waiting and self._advance(waiting[0], effects):
                waiting.popleft()
            if not waiting:
                del self.under_way[connection]
        return effects

    def forget(self, stream: Stream) -> None:
        """Drops the changes of a stream that has closed."""
        self._received.pop(stream.connection, None)
        for change in self.under_way.pop(stream.connection, ()):
            self._give_up(change)

    # -- received events --------------------------------------------------------------------------------

    def note_left(self, stream: Stream, name: str, until: int) -> None:
        """Notes that the stream left a channel after it had received the channel's events up to `until`."""
        self._received_by(stream).leave(name, stream.began, until)

    def note_gaps(self, stream: Stream, gaps: list[Gap]) -> None:
        """Notes that the stream does not receive the events in `gaps`. Empties `gaps`."""
        while gaps:
            self._received_by(stream).skip(gaps.pop(), stream.began)

    def note_lost(self, gap: Gap, streams: Iterable[Stream]) -> None:
        """Notes a gap for every stream in `streams` that is in a group with the gap's channel."""
        for stream in streams:
            if stream.group is not None and gap.channel in stream.group.channels:
                self._received_by(stream).skip(gap, stream.began)

    def begin_epoch(self, stream: Stream) -> None:
        """Drops the record of received events, because positions of the old epoch are no longer valid."""
        self._received.pop(stream.connection, None)

    def _received_by(self, stream: Stream) -> ReceivedEvents:
        return self._received.setdefault(stream.connection, ReceivedEvents())

    # -- one change -------------------------------------------------------------------------------------

    def _advance(self, change: ChannelChange, effects: list[Delivery | Effect]) -> bool:
        """Advances a change as far as possible now; returns whether the change is done or given up."""
        stream = change.stream
        if stream.closing:
            self._give_up(change)
            return True
        if stream.group is None:  # the stream's thread still sends the events that it missed
            return False
        recovery = change.recovery or self._begin(change)
        if recovery is None:
            effects.append(_writing(stream, self._too_many(change)))
            return True
        for _ in range(MAX_STEPS):
            if recovery.is_complete():
                if recovery.is_settled():
                    self._finish(change, effects)
                    return True
                return False
            step = recovery.next() if stream.buffered <= MAX_BUFFERED else None
            if step is None:
                return False
            frames = b"" if change.moves_shards else self._missed(change, recovery, step)
            if frames:
                effects.append(_writing(stream, frames))
        return False

    def _begin(self, change: ChannelChange) -> Recovery | None:
        """Subscribes to the new channels, and returns the object that reads their missed events.

        Returns None if the stream would have too many channels.
        """
        old = change.stream.channels
        change.join = tuple(name for name in change.join if name not in old and name not in change.leave)
        channels = change.channels
        if len(channels) - 1 > self._max_channels:
            return None
        before, after = self._shards.placement(change.stream.subscribed), self._shards.placement(channels)
        change.moves_shards = before.is_sharded or before.parts.keys() != after.parts.keys()
        if change.moves_shards:
            change.recovery = self._shards.recovery(channels, StartPoint())
            self._shards.enter(channels)
        else:
            history_cache = after.history_cache
            start = start_points(after, change.start)[history_cache.number]
            change.recovery = ShardRecovery(history_cache, change.join, start)
            self._shards.enter(change.join)
        return change.recovery

    def _give_up(self, change: ChannelChange) -> None:
        if change.recovery is not None:
            change.recovery.close()
            self._shards.exit(change.channels if change.moves_shards else change.join, self._clock())

    def _missed(self, change: ChannelChange, recovery: Recovery, step: Step) -> bytes:
        """Returns the frames of one step: resets, and `sse.missed` without events received before."""
        stream, received = change.stream, self._received_by(change.stream)
        if step.opening is not None or any(reset.reason == "epoch" for reset in step.resets):
            received.joined.update(dict.fromkeys(change.join, step.began or 0))
        self.note_gaps(stream, recovery.gaps)
        resets = [reset_frame(reset.channels, reset.reason, None, stream.dialect) for reset in step.resets]
        frames = b"".join(resets)
        if step.chunk.entries:
            missed = [
                entry
                for entry in step.chunk.entries
                if not (stream.is_excluded(entry.exclude) or received.has(entry, stream))
            ]
            stream.events += len(missed)
            cursor = self._shards.placement(change.channels).cursor(recovery.positions)
            frames += _missed_frame(change, missed, cursor)
        return frames

    def _finish(self, change: ChannelChange, effects: list[Delivery | Effect]) -> None:
        """Moves the stream to the group of its new channels."""
        stream, channels = change.stream, change.channels
        left = tuple(name for name in stream.channels if name in change.leave)
        after = self._shards.placement(channels)
        positions = after.positions()
        cursor = after.cursor(positions)
        before = stream.subscribed
        effects += self._move(stream, channels, positions)
        data: dict[str, Any] = {"channels": channels[:-1], "joined": change.join, "left": left}
        if change.tab:
            data |= {"joined": change.asked[0], "left": change.asked[1], "tab": change.tab}
        if change.moves_shards:
            self._shards.exit(before, self._clock())
            self._received.pop(stream.connection, None)
            stream.began = 0 if after.is_sharded else positions[after.history_cache.number]
            frames = control_frame("sse.channels", data)
            if change.join or left:
                # An event on several shards reaches a stream from only one shard. Which shard that is depends
                # on the stream's channels, so it can change with them. Shards have no common order, so nobody
                # can say which events on several shards the stream has already received.
                frames += reset_frame(*reset_of(list(channels), channels, "channels", cursor), stream.dialect)
        else:
            self._shards.exit(left, self._clock())
            for name in left:
                self.note_left(stream, name, positions[after.history_cache.number])
            frames = control_frame("sse.channels", data, str(cursor))
        stream.app_joined -= change.leave
        if change.vouched:
            stream.app_joined |= frozenset(change.asked[0])
        effects.append(_writing(stream, change.notice + frames + _unread_frame(change)))
        effects.append(partial(self._changed, stream, change.join, left))

    def _too_many(self, change: ChannelChange) -> bytes:
        message = f"a stream listens to at most {self._max_channels} channels"
        return error_frame(ErrorCode.INVALID_FORMAT, message, {"join": list(change.join)})


def _writing(stream: Stream, frames: bytes) -> Effect:
    chunk = stream.own_chunk(frames)
    stream.bytes += len(chunk)
    return partial(stream.write, chunk)


def start_of_change(arguments: Mapping[str, Any]) -> StartPoint:
    """Returns where new channels start: after the cursor `since`, or with the `last` newest events.

    Without both arguments, the new channels start with new events only.
    """
    since, last = arguments.get("since"), arguments.get("last")
    if since:
        return StartPoint(since if len(since) <= MAX_LENGTH else "?")
    return StartPoint(newest=last)


def _missed_frame(change: ChannelChange, entries: Sequence[Entry], cursor: StreamCursor) -> bytes:
    """Returns the frame `sse.missed` with earlier events of the new channels.

    A client that loses its connection after this frame can resume the channels at `cursor`.
    """
    stream = change.stream
    shown = {*change.join, *stream.channels}
    frames = [entry.tagged(shown) if stream.tagged else entry.frame for entry in entries]
    events = [batch.message_of(frame)[0] for frame in frames]
    data = {"channels": change.join, "events": events, "cursor": str(cursor)}
    return control_frame("sse.missed", data | ({"tab": change.tab} if change.tab else {}))


def _unread_frame(change: ChannelChange) -> bytes:
    """Returns `sse.reset` for a tab that wants earlier events of channels that the shared stream already has.

    Only streams that join a channel get the earlier events of this channel.
    """
    unread = [name for name in change.asked[0] if name not in change.join]
    if not (change.tab and unread and change.start != StartPoint()):
        return b""
    return control_frame("sse.reset", {"channels": unread, "reason": "shared", "tab": change.tab})
