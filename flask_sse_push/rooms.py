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
from .control import Act
from .cursor import MAX_LENGTH, Cursor
from .errors import ErrorCode, error_body
from .group import Delivery
from .resume import Gap, Resume, Start, reset_frame
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

    __slots__ = ("join", "leave", "resume", "sink", "start")

    def __init__(self, sink: Sink, join: Sequence[str], leave: Sequence[str], start: Start) -> None:
        self.sink = sink
        self.join = tuple(dict.fromkeys(join))
        self.leave = frozenset(leave)
        self.start = start
        self.resume: Resume | None = None  # set when it has begun


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

    :param enter: has a channel subscribed and counted.
    :param leave: counts it no more.
    :param move: lets a stream take part in the fan-out of other channels, from a position on; returns what
        must be written before anything else.
    :param changed: is told, without the lock, of the channels that a stream has joined and left.
    """

    def __init__(
        self,
        timeline: Timeline,
        max_channels: int,
        *,
        enter: Callable[[str], None],
        leave: Callable[[str], None],
        move: Callable[[Sink, tuple[str, ...], int], Sequence[Delivery]],
        changed: Callable[[Sink, tuple[str, ...], tuple[str, ...]], None],
    ) -> None:
        self._timeline = timeline
        self._max_channels = max_channels
        self._enter = enter
        self._leave = leave
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
        """Whether a change that waits or is under way adds one of `channels`."""
        waiting = self._changes.get(sink.connection, ())
        return any(name in channels for change in waiting for name in change.join)

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

    def begin_epoch(self) -> None:
        """Forgets what streams have had: positions of the old epoch mean nothing in the new one."""
        self._past.clear()

    def forget(self, sink: Sink) -> None:
        """Drops what was under way for a stream that has left."""
        self._past.pop(sink.connection, None)
        for change in self._changes.pop(sink.connection, ()):
            if change.resume is not None:
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
            if change.resume is not None:
                self._give_up(change)
            return True
        if sink.group is None:  # still catching up, by its own thread
            return False
        if change.resume is None and not self._begin(change):
            acts.append(_writing(sink, self._too_many(change)))
            return True
        assert change.resume is not None
        for _ in range(PIECES):
            if self._is_served(change.resume):
                if self._timeline.is_even(change.resume):
                    self._change_over(change, acts)
                    return True
                return False
            if sink.buffered > MAX_BUFFERED or self._timeline.blocks(change.resume):
                return False
            frames = self._catch_up(change, change.resume)
            if frames:
                acts.append(_writing(sink, frames))
        return False

    def _begin(self, change: Change) -> bool:
        """Has the new channels subscribed; False when they are too many."""
        old = change.sink.channels
        change.join = tuple(name for name in change.join if name not in old and name not in change.leave)
        if len([name for name in old if name not in change.leave]) + len(change.join) > self._max_channels:
            return False
        for name in change.join:
            self._enter(name)
        change.resume = Resume(change.join, change.start)
        return True

    def _give_up(self, change: Change) -> None:
        for name in change.join:
            self._leave(name)

    def _is_served(self, resume: Resume) -> bool:
        return not resume.channels or (self._timeline.ready and resume.is_served(self._timeline.moment()))

    def _catch_up(self, change: Change, resume: Resume) -> bytes:
        """The next frames about what the stream missed of its new channels."""
        replicas, moment = self._timeline.replicas, self._timeline.moment()
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

    def _change_over(self, change: Change, acts: list[Delivery | Act]) -> None:
        sink, moment = change.sink, self._timeline.moment()
        left = tuple(name for name in sink.channels if name in change.leave)
        kept = tuple(name for name in sink.channels if name not in change.leave)
        channels = (*kept, *change.join)
        acts += self._move(sink, (*channels, BROADCAST), moment.position)
        for name in left:
            self._leave(name)
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
