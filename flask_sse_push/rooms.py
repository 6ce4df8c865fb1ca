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

from .brokers.base import BROADCAST, Entry
from .catchup import CatchUp, way_of
from .catchup import start_of as start_of_way
from .control import Act
from .cursor import MAX_LENGTH, Cursor
from .errors import ErrorCode, error_body
from .group import Delivery
from .resume import Gap, Moment, Resume, Shelf, Start, reset_frame, reset_of
from .shards import Shards
from .sink import Sink
from .timeline import Timeline
from .wire import control

#: Changes of one stream that may wait for the one under way.
MAX_WAITING = 100
#: Pieces of what it missed that a stream gets in one turn: others want to be served, too.
PIECES = 4
#: Bytes that may wait for a client before it gets no more of what it missed.
MAX_BUFFERED = 262_144


class Change:
    """New channels for one stream, and others that it leaves.

    :param start: from where the new channels' events are wanted.
    """

    __slots__ = ("join", "leave", "resume", "sink", "start", "way")

    def __init__(self, sink: Sink, join: Sequence[str], leave: Sequence[str], start: Start) -> None:
        self.sink = sink
        self.join = tuple(dict.fromkeys(join))
        self.leave = frozenset(leave)
        self.start = start
        self.resume: Resume | None = None  # set when it has begun
        self.way: CatchUp | None = None  # set instead when it takes several shards

    @property
    def channels(self) -> tuple[str, ...]:
        """What the stream will listen to."""
        kept = tuple(name for name in self.sink.channels if name not in self.leave)
        return (*kept, *self.join, BROADCAST)


class Past:
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

    def has(self, entry: Entry, sink: Sink) -> bool:
        """Whether the event has come to the stream already, by whatever channel."""
        for name in entry.channels:
            if name in sink.subscribed and entry.id > self.joined.get(name, sink.began):
                return True
        return any(name in entry.channels and after < entry.id <= until for name, after, until in self.left)


class Rooms:
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
        move: Callable[[Sink, tuple[str, ...], Mapping[int, int]], Sequence[Delivery]],
        changed: Callable[[Sink, tuple[str, ...], tuple[str, ...]], None],
    ) -> None:
        self._shards = shards
        self._max_channels = max_channels
        self._clock = clock
        self._move = move
        self._changed = changed
        self._changes: dict[str, deque[Change]] = {}  # by connection; the first one of each is under way
        self._past: dict[str, Past] = {}  # of streams that have changed their channels

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, change: Change) -> None:
        """Queues a change. One too many is left out: no client asks that often."""
        waiting = self._changes.setdefault(change.sink.connection, deque())
        if len(waiting) < MAX_WAITING:
            waiting.append(change)

    def is_joining(self, sink: Sink, channels: Collection[str]) -> bool:
        """Whether a change that waits or is under way adds one of `channels`, or is set on what the stream
        has now."""
        waiting = self._changes.get(sink.connection, ())
        return any(name in channels for change in waiting for name in change.join) or any(
            change.way is not None for change in waiting
        )

    def note_left(self, sink: Sink, name: str, until: int) -> None:
        """Notes that the stream has had the channel's events up to `until`, and gets no more of them."""
        self._past.setdefault(sink.connection, Past()).leave(name, sink.began, until)

    def note_gaps(self, sink: Sink, resume: Resume) -> None:
        """Notes what the stream was not given of its channels, and takes that out of `resume`."""
        past = self._past.setdefault(sink.connection, Past())
        while resume.gaps:
            past.skip(resume.gaps.pop(), sink.began)

    def note_lost(self, gap: Gap, sinks: Iterable[Sink]) -> None:
        """Notes what the streams that follow the channel have missed of it."""
        for sink in sinks:
            if sink.group is not None and gap.channel in sink.group.channels:
                self._past.setdefault(sink.connection, Past()).skip(gap, sink.began)

    def begin_epoch(self, sink: Sink) -> None:
        """Forgets what a stream has had: positions of the old epoch mean nothing in the new one."""
        self._past.pop(sink.connection, None)

    def forget(self, sink: Sink) -> None:
        """Drops what was under way for a stream that has left."""
        self._past.pop(sink.connection, None)
        for change in self._changes.pop(sink.connection, ()):
            self._give_up(change)

    def advance(self) -> list[Delivery | Act]:
        """Goes on with every change as far as it can; what is to be written."""
        acts: list[Delivery | Act] = []
        for connection, waiting in list(self._changes.items()):
            while waiting and self._step(waiting[0], acts):
                waiting.popleft()
            if not waiting:
                del self._changes[connection]
        return acts

    # -- one change ---------------------------------------------------------------------------------------

    def _step(self, change: Change, acts: list[Delivery | Act]) -> bool:
        """Goes on with a change; returns whether it is over."""
        sink = change.sink
        if sink.dismissed:
            self._give_up(change)
            return True
        if sink.group is None:  # still catching up, by its own thread
            return False
        if change.resume is None and change.way is None and not self._begin(change):
            acts.append(_writing(sink, self._too_many(change)))
            return True
        if change.way is not None:
            return self._go_over(change, change.way, acts)
        assert change.resume is not None
        shard = self._shards.route(sink.subscribed).only
        for _ in range(PIECES):
            if self._is_served(change.resume, shard.timeline):
                if shard.timeline.is_even(change.resume):
                    self._change_over(change, shard.timeline.moment(), acts)
                    return True
                return False
            if sink.buffered > MAX_BUFFERED or shard.timeline.blocks(change.resume):
                return False
            frames = self._catch_up(change, change.resume, shard.timeline)
            if frames:
                acts.append(_writing(sink, frames))
        return False

    def _begin(self, change: Change) -> bool:
        """Has the new channels subscribed; False when they are too many."""
        old = change.sink.channels
        change.join = tuple(name for name in change.join if name not in old and name not in change.leave)
        if len([name for name in old if name not in change.leave]) + len(change.join) > self._max_channels:
            return False
        before, after = self._shards.route(change.sink.subscribed), self._shards.route(change.channels)
        if before.is_split or before.parts.keys() != after.parts.keys():
            change.way = way_of(after, Start())
            after.enter(after.channels)
        else:
            change.resume = Resume(change.join, start_of_way(after, change.start))
            self._shards.enter(change.join)
        return True

    def _give_up(self, change: Change) -> None:
        if change.way is not None:
            self._shards.exit(change.channels, self._clock())
        elif change.resume is not None:
            self._shards.exit(change.join, self._clock())

    @staticmethod
    def _is_served(resume: Resume, timeline: Timeline) -> bool:
        return not resume.channels or (timeline.ready and resume.is_served(timeline.moment()))

    def _go_over(self, change: Change, way: CatchUp, acts: list[Delivery | Act]) -> bool:
        """Changes to channels on other shards, once they are all at hand; returns whether that is done.

        There is no order between shards, so what the stream has had of events that lie on several of them
        cannot be told in terms of its new channels: it is told to fetch its state anew.
        """
        for _ in range(PIECES):
            if way.is_served():
                if not way.is_even():
                    return False
                self._change_shards(change, acts)
                return True
            if way.blocks():
                return False
            way.step()
            way.take(Shelf())
        return False

    def _change_shards(self, change: Change, acts: list[Delivery | Act]) -> None:
        sink, after = change.sink, self._shards.route(change.channels)
        at = after.positions()
        left = tuple(name for name in sink.channels if name in change.leave)
        self._past.pop(sink.connection, None)
        before = sink.subscribed
        acts += self._move(sink, after.channels, at)
        self._shards.exit(before, self._clock())
        sink.began = 0 if after.is_split else at[after.only.number]
        data = {"channels": sink.channels, "joined": change.join, "left": left}
        frames = control("sse.channels", data)
        if change.join or left:
            reset = reset_of(list(after.channels), after.channels, "channels", after.at(at))
            frames += reset_frame(reset)
        acts.append(_writing(sink, frames))
        acts.append(partial(self._changed, sink, change.join, left))

    def _catch_up(self, change: Change, resume: Resume, timeline: Timeline) -> bytes:
        """The next frames about what the stream missed of its new channels."""
        replicas, moment = timeline.replicas, timeline.moment()
        begins = resume.at is None
        reset = resume.begin(replicas, moment)[1] if begins else resume.reset(replicas, moment)
        past = self._past.setdefault(change.sink.connection, Past())
        if begins or (reset is not None and reset.reason == "epoch"):
            past.joined.update(dict.fromkeys(change.join, resume.at or 0))
        self.note_gaps(change.sink, resume)
        frames = b"" if reset is None else reset_frame(reset._replace(cursor=None))
        taken = resume.take(replicas, moment)
        if taken:
            sink = change.sink
            missed = [
                entry for entry in taken if not (sink.is_excluded(entry.exclude) or past.has(entry, sink))
            ]
            change.sink.events += len(missed)
            frames += _missed_frame(change, missed, Cursor(moment.epoch, taken[-1].id))
        return frames

    def _change_over(self, change: Change, moment: Moment, acts: list[Delivery | Act]) -> None:
        sink = change.sink
        left = tuple(name for name in sink.channels if name in change.leave)
        kept = tuple(name for name in sink.channels if name not in change.leave)
        channels = (*kept, *change.join)
        (number,) = self._shards.route((*channels, BROADCAST)).parts
        acts += self._move(sink, (*channels, BROADCAST), {number: moment.position})
        self._shards.exit(left, self._clock())
        for name in left:
            self.note_left(sink, name, moment.position)
        data = {"channels": channels, "joined": change.join, "left": left}
        frame = control("sse.channels", data, str(Cursor(moment.epoch, moment.position)))
        acts.append(_writing(sink, frame))
        acts.append(partial(self._changed, sink, change.join, left))

    def _too_many(self, change: Change) -> bytes:
        message = f"a stream listens to at most {self._max_channels} channels"
        return control(
            "sse.error", error_body(ErrorCode.INVALID_FORMAT, message, {"join": list(change.join)})
        )


def _writing(sink: Sink, frames: bytes) -> Act:
    chunk = sink.own(frames)
    sink.bytes += len(chunk)
    return partial(sink.write, chunk)


def start_of(arguments: Mapping[str, Any]) -> Start:
    """Where the new channels are to begin: after the cursor `since`, with the `last` newest, or now."""
    since, last = arguments.get("since"), arguments.get("last")
    if since:
        return Start(since if len(since) <= MAX_LENGTH else "?")
    return Start(newest=last)


def _missed_frame(change: Change, entries: Sequence[Entry], cursor: Cursor) -> bytes:
    """`sse.missed`: what came before the stream joined. A client that breaks off goes on from `cursor`."""
    shown = {*change.join, *change.sink.channels}
    events = [_message(entry, shown if change.sink.tagged else ()) for entry in entries]
    return control("sse.missed", {"channels": change.join, "events": events, "cursor": str(cursor)})


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
