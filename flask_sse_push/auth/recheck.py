"""Checks whether the users of open streams may still listen. If not, closes streams or removes channels.

A stream is checked at intervals, and when its identity expires. A stream that was opened without a user and
with public channels only is not checked until it joins a channel. The timer's thread calls no function of the
app. So identities expire in time, however long the app's rules take.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from math import inf
from typing import Any

from ..config.channel_policies import ADMIN_CHANNEL
from ..errors import ErrorCode
from ..hub import background
from ..hub.disconnect import forbidden_frames
from ..hub.hub import Hub
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.frames import error_frame
from .rule_threads import Question, RuleThreads

logger = logging.getLogger(__name__)

#: Each check comes after a random time between this share of the interval and the whole interval. So streams
#: that were opened at the same time are later checked at different times.
EARLIEST = 0.75
#: Seconds until a failed check is repeated.
PAUSE = 1.0
#: After this many failed checks in a row, the stream is closed. A check fails if the app's function raises an
#: exception. The client reconnects and is then checked like a new client.
MAX_FAILURES = 3
#: A check that takes longer than this, in seconds, closes its stream. The client reconnects and is then
#: checked like a new client.
HUNG = 10.0
#: If checks begin later than this many seconds after their time, the log has a warning.
LATE = 5.0
#: Seconds between two warnings of the same kind.
WARN_EVERY = 60.0
#: After it has looked at this many streams in a row, the timer lets other threads run.
MAX_RUN = 20

#: A function that takes a grant and channels, and returns the channels that the user may no longer listen to;
#: None if the user may not listen at all any more. May block and raise.
FindForbidden = Callable[[Any, Collection[str]], "list[str] | None"]


class WatchedStream:
    """A stream that is checked at intervals. All times are monotonic seconds."""

    __slots__ = ("check", "due", "expires", "failures", "look_at", "opened", "stream")

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.opened = now
        # `Identity.expires` is wall-clock time. `self.expires` is monotonic, so a changed clock does no harm.
        expires = stream.grant and stream.grant.identity.expires
        self.expires = None if expires is None else now + expires - time.time()
        self.due = 0.0  # monotonic time of the next check
        self.check: Check | None = None  # the check that waits for a thread or runs
        self.look_at = 0.0  # when the timer looks at the stream
        self.failures = 0  # how many checks in a row have failed


class Check(Question):
    """One check of a stream: asks the app whether the stream's user may still listen."""

    def __init__(self, watched: WatchedStream, recheck: Recheck) -> None:
        super().__init__(watched.due)
        self.watched = watched
        self.began: float | None = None  # the monotonic time at which a thread began to ask
        self._recheck = recheck

    def ask(self) -> None:
        self.began = time.monotonic()
        self._recheck.check(self)


class Recheck(StreamListener):
    """Checks the open streams of this worker. The threads start when the first stream is watched.

    :param find_forbidden: finds the channels that a stream may no longer listen to; see `FindForbidden`.
    :param interval: at most this many seconds lie between two checks of a stream.
    """

    def __init__(self, find_forbidden: FindForbidden, interval: float) -> None:
        self._find_forbidden = find_forbidden
        self._interval = interval
        self._hub: Hub
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watched: dict[str, WatchedStream] = {}  # keys are connection ids
        # A heap; its first item is the next look. It has the connection ids of streams, not the streams, so
        # that a stream that has closed does not stay in memory until the timer would have looked at it.
        self._looks: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()  # a number for each look, so that the heap compares no streams
        self._threads = RuleThreads()
        self._commands_lost_at = 0.0
        self._warned_at = {"late": -inf, "hung": -inf}  # when the log had each warning, in monotonic seconds
        self._failing = self._started = self._closed = False

    def attach(self, hub: Hub) -> None:
        """Makes this object check the streams of `hub`. Call it before `hub` has streams."""
        self._hub = hub
        hub.commands.on_lost(self._note_lost_commands)

    def lag(self) -> float:
        """Returns how late the oldest check is that waits for a thread, in seconds; 0 if no check waits."""
        return max(0.0, time.monotonic() - self._threads.waiting()[1])

    def seconds_until(self, stream: Stream) -> float | None:
        """Returns in how many seconds a stream is checked again; None if it is not checked."""
        watched = self._watched.get(stream.connection)
        return None if watched is None else max(0.0, watched.due - time.monotonic())

    # -- called by the hub when streams open, change and close ------------------------------------------

    def opened_with_grant(self, stream: Stream) -> None:
        self._watch(stream)

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        if joined and stream.connection not in self._watched:
            self._watch(stream)

    def closed(self, stream: Stream) -> None:
        self._watched.pop(stream.connection, None)

    def _watch(self, stream: Stream) -> None:
        watched = self._watched[stream.connection] = WatchedStream(stream, time.monotonic())
        self._check_in(watched, self._pause())
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                background.start("recheck", self.run)

    def _pause(self) -> float:
        return self._interval * random.uniform(EARLIEST, 1)

    def _check_in(self, watched: WatchedStream, seconds: float) -> None:
        """Schedules the next check of a stream."""
        watched.check, watched.due = None, time.monotonic() + seconds
        self._look(watched, watched.due)

    def _look(self, watched: WatchedStream, at: float) -> None:
        """Makes the timer look at a stream at the monotonic time `at`, or earlier if its identity expires."""
        with self._lock:
            watched.look_at = at if watched.expires is None else min(at, watched.expires)
            look = watched.look_at, next(self._numbers), watched.stream.connection
            heapq.heappush(self._looks, look)
            is_next = self._looks[0] is look
        if is_next:
            self._wake.set()

    def _note_lost_commands(self) -> None:
        """Called by the hub when commands may have been lost.

        A lost command may have been a revocation. So all streams that are open now have to reconnect.
        """
        self._commands_lost_at = time.monotonic()

    # -- the timer: a thread that calls no function of the app ------------------------------------------

    def run(self) -> None:
        """Looks at streams until `close` is called. This is the main function of the timer's thread."""
        while not self._closed:
            with self._lock:
                wait = self._looks[0][0] - time.monotonic() if self._looks else None
            if wait is None or wait > 0:
                self._wake.wait(wait)
            self._wake.clear()
            try:
                self._run_looks()
                self._warn_if_late()
            except Exception:
                logger.exception("checking open streams failed; trying again in %g s", PAUSE)
                time.sleep(PAUSE)

    def _run_looks(self) -> None:
        """Looks at all streams whose time has come."""
        for count in itertools.count(1):
            with self._lock:
                if not self._looks or self._looks[0][0] > time.monotonic():
                    return
                at, _, connection = heapq.heappop(self._looks)
            watched = self._watched.get(connection)
            if watched is not None and watched.look_at == at:
                self._look_now(watched, time.monotonic())
            if count % MAX_RUN == 0:
                time.sleep(0)

    def _look_now(self, watched: WatchedStream, now: float) -> None:
        check = watched.check
        if watched.stream not in self._hub:
            self._watched.pop(watched.stream.connection, None)
        elif watched.expires is not None and watched.expires <= now:
            notice = error_frame(ErrorCode.AUTH_EXPIRED, "the token has expired: log in again", {})
            self._close_stream(watched, "expired", reconnect=False, notice=notice)
        elif watched.due > now:
            self._look(watched, watched.due)
        elif watched.opened < self._commands_lost_at:
            self._close_stream(watched, "recheck", reconnect=True)
        elif check is None:
            watched.check = Check(watched, self)
            self._look(watched, now + HUNG)
            self._threads.put(watched.check)
        else:
            self._look_at_check(watched, check, now)

    def _look_at_check(self, watched: WatchedStream, check: Check, now: float) -> None:
        """Closes the stream if its check hangs. Else the timer looks again when the check may hang."""
        began = check.began
        if began is None and not self._threads.is_stuck:
            self._look(watched, now + HUNG)
        elif began is not None and now < began + HUNG:
            self._look(watched, began + HUNG)
        else:
            self._warn(
                "hung",
                "@sse.authorize or the user loader has not answered for %g s; closing stream %s, so that its "
                "client connects again. Give the database calls in them a timeout",
                HUNG,
                watched.stream.connection,
            )
            self._close_stream(watched, "recheck", reconnect=True)
            self._threads.replace(check)

    def _warn_if_late(self) -> None:
        count, due = self._threads.waiting()
        late = time.monotonic() - due
        if late > LATE:
            self._warn(
                "late",
                "the rights of %d open streams should have been checked by now, the oldest %.0f s ago: "
                "@sse.authorize and the user loader are too slow for so many streams. Make them faster, or "
                "raise SSE_PUSH_RECHECK",
                count,
                late,
            )

    def _warn(self, kind: str, message: str, *arguments: object) -> None:
        """Logs a warning, but each kind at most once in WARN_EVERY seconds."""
        now = time.monotonic()
        if now >= self._warned_at[kind] + WARN_EVERY:
            self._warned_at[kind] = now
            logger.warning(message, *arguments)

    # -- called in a thread of `RuleThreads` -------------------------------------------------------------

    def check(self, check: Check) -> None:
        """Asks the app about one stream, and applies the answer. Blocks as long as the app does."""
        watched, pause = check.watched, self._pause()
        if watched.stream not in self._hub:
            return
        try:
            forbidden = self._forbidden(watched.stream)
        except Exception:
            pause = min(pause, PAUSE)
            self._note_failure(watched)
        else:
            watched.failures, self._failing = 0, False
            if forbidden is None:
                self._close_stream(watched, "revoked", reconnect=False)
            elif forbidden:
                self._remove_channels(watched.stream, forbidden)
        if self._watched.get(watched.stream.connection) is watched:
            self._check_in(watched, pause)

    def _forbidden(self, stream: Stream) -> list[str] | None:
        joined = stream.app_joined - {ADMIN_CHANNEL}  # only `@sse.authorize_admin` opens this channel
        channels = [name for name in stream.channels if name not in joined]
        return self._find_forbidden(stream.grant, channels)

    def _note_failure(self, watched: WatchedStream) -> None:
        watched.failures += 1
        if not self._failing:  # logs the first failure only, not a failure of every stream
            self._failing = True
            logger.error("the rights of open streams could not be checked; trying again in %g s", PAUSE)
        if watched.failures >= MAX_FAILURES:
            self._close_stream(watched, "recheck", reconnect=True)

    # -- changing streams --------------------------------------------------------------------------------

    def _close_stream(
        self, watched: WatchedStream, reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> None:
        self._watched.pop(watched.stream.connection, None)
        close = partial(self._hub.disconnector.close_streams, [watched.stream], reason)
        self._hub.call_soon(partial(close, reconnect=reconnect, notice=notice))

    def _remove_channels(self, stream: Stream, channels: list[str]) -> None:
        remove, notice = self._hub.disconnector.remove_channels, forbidden_frames(channels)
        self._hub.call_soon(partial(remove, stream, channels, "revoked", notice))

    def close(self) -> None:
        """Ends the timer. May be called twice."""
        self._closed = True
        self._threads.close()
        self._wake.set()
