"""Checks whether the users of open streams may still listen. If not, closes streams or removes channels.

A stream is checked at intervals, when its identity expires, and when a `revoke` command arrives. A stream
that was opened without a user and with public channels only is not checked until it joins a channel.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from ..errors import BrokerUnavailable, ErrorCode
from ..hub import background
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.command import REVOKE
from ..protocol.frames import error_frame

logger = logging.getLogger(__name__)

#: Each check comes after a random time between this share of the interval and the whole interval. So streams
#: that were opened at the same time are later checked at different times.
EARLIEST = 0.75
#: Seconds until a failed check is repeated, and until a command that could not be published is tried again.
PAUSE = 1.0
#: After so many failed checks in a row, the stream is closed. A check fails if the app's function raises an
#: exception. The client reconnects and is then checked like a new client.
MAX_FAILURES = 3
#: How long a revocation is kept, in seconds. A kept revocation also applies to a stream that opens later, if
#: the stream's user was looked up before the revocation.
REVOCATIONS_KEPT = 30.0
#: At most so many commands wait for a broker that does not answer. A further command replaces the oldest.
MAX_UNSENT = 1000
#: After so many checks in a row, the recheck thread lets other threads run.
MAX_RUN = 20

#: A function that takes a grant and channels, and returns the channels that the user may no longer listen to;
#: None if the user may not listen at all any more. May block and raise.
FindForbidden = Callable[[Any, Collection[str]], "list[str] | None"]


class WatchedStream:
    """A stream that is checked at intervals. `opened` and `expires` are monotonic times in seconds."""

    __slots__ = ("expires", "failures", "opened", "stream")

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.opened = now
        # `Identity.expires` is wall-clock time. `self.expires` is monotonic, so a changed clock does no harm.
        expires = stream.grant and stream.grant.identity.expires
        self.expires = None if expires is None else now + expires - time.time()
        self.failures = 0  # how many checks in a row have failed


class Recheck(StreamListener):
    """Checks the open streams of this worker. The thread that checks starts when the first stream is watched.

    :param find_forbidden: finds the channels that a stream may no longer listen to; see `FindForbidden`.
    :param interval: at most so many seconds lie between two checks of a stream.
    :param send: a function that publishes a command, and raises BrokerUnavailable if the broker does not
        answer.
    """

    def __init__(self, find_forbidden: FindForbidden, interval: float, send: Callable[..., Any]) -> None:
        self._find_forbidden = find_forbidden
        self._interval = interval
        self._send = send
        self._hub: Hub
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watched: dict[str, WatchedStream] = {}  # keys are connection ids
        self._checks: list[tuple[float, int, WatchedStream]] = []  # a heap; its first item is the next check
        self._numbers = itertools.count()  # a number for each check, so that the heap compares no streams
        self._revocations: deque[tuple[float, Mapping[str, Any]]] = deque()  # (time, arguments) pairs
        self._unsent: deque[dict[str, Any]] = deque(maxlen=MAX_UNSENT)
        self._commands_lost_at = 0.0
        self._failing = self._started = self._closed = False

    def attach(self, hub: Hub) -> None:
        """Starts to handle the `revoke` commands that `hub` receives. Call it before `hub` has streams."""
        self._hub = hub
        hub.commands.on(REVOKE, self._revoke, late=self._revoke_late)
        hub.commands.on_lost(self._note_lost_commands)

    # -- called by the hub when streams open, change and close ------------------------------------------

    def opened_with_grant(self, stream: Stream) -> None:
        self._watch(stream)
        with self._lock:
            missed = [arguments for at, arguments in self._revocations if at >= stream.grant.began]
        for arguments in missed:
            if arguments["user_id"] == stream.user_id:
                self._hub.call_soon(partial(self._revoke_from, [stream], arguments))

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        if joined and stream.connection not in self._watched:
            self._watch(stream)

    def closed(self, stream: Stream) -> None:
        self._watched.pop(stream.connection, None)

    def _watch(self, stream: Stream) -> None:
        now = time.monotonic()
        watched = self._watched[stream.connection] = WatchedStream(stream, now)
        self._schedule(watched, now + self._interval * random.uniform(EARLIEST, 1))
        self._ensure_thread()

    def _schedule(self, watched: WatchedStream, at: float) -> None:
        if watched.expires is not None:
            at = min(at, watched.expires)
        with self._lock:
            heapq.heappush(self._checks, (at, next(self._numbers), watched))
            is_next = self._checks[0][2] is watched
        if is_next:
            self._wake.set()

    # -- revoking a user's rights -----------------------------------------------------------------------

    def revoke_without_broker(self, **arguments: Any) -> None:
        """Revokes a user's rights on this worker now, and on all workers when the broker is back."""
        self._hub.call_soon(partial(self._revoke, arguments))
        self._unsent.append(arguments)
        self._wake.set()
        self._ensure_thread()

    def _revoke(self, arguments: Mapping[str, Any]) -> list[Effect]:
        self._keep(time.monotonic(), arguments)
        return self._revoke_from(self._hub.disconnector.find(user_id=arguments["user_id"]), arguments)

    def _revoke_late(self, arguments: Mapping[str, Any], at: float) -> list[Effect]:
        """Handles a `revoke` command that was published before this worker subscribed to commands.

        Applies the command only to streams whose user was looked up before the command.

        :param at: the monotonic time of the command.
        """
        if at < time.monotonic() - REVOCATIONS_KEPT:
            return []
        self._keep(at, arguments)
        streams = self._hub.disconnector.find(user_id=arguments["user_id"])
        early = [stream for stream in streams if stream.grant and stream.grant.began <= at]
        return self._revoke_from(early, arguments)

    def _keep(self, at: float, arguments: Mapping[str, Any]) -> None:
        with self._lock:
            while self._revocations and self._revocations[0][0] < at - REVOCATIONS_KEPT:
                self._revocations.popleft()
            self._revocations.append((at, arguments))

    def _revoke_from(self, streams: Iterable[Stream], arguments: Mapping[str, Any]) -> list[Effect]:
        channel, reason = arguments.get("channel"), str(arguments.get("reason", "revoked"))
        if channel is None:
            return self._hub.disconnector.close_streams(streams, reason, reconnect=False)
        notice = forbidden_frames([channel])
        effects: list[Effect] = []
        for stream in streams:
            effects += self._hub.disconnector.remove_channels(stream, [channel], reason, notice)
        return effects

    def _note_lost_commands(self) -> None:
        """Called by the hub when commands may have been lost.

        A lost command may have been a revocation. So all streams that are open now have to reconnect.
        """
        self._commands_lost_at = time.monotonic()

    # -- run by the recheck thread ----------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                background.start("recheck", self.run)

    def run(self) -> None:
        """Checks streams until `close` is called. Runs in the recheck thread."""
        while not self._closed:
            self._wake.wait(self._seconds_to_wait(time.monotonic()))
            self._wake.clear()
            try:
                self._send_unsent()
                self._run_checks()
            except Exception:
                logger.exception("checking open streams failed; trying again in %g s", PAUSE)
                time.sleep(PAUSE)

    def _seconds_to_wait(self, now: float) -> float | None:
        with self._lock:
            waits = [max(0.0, self._checks[0][0] - now)] if self._checks else []
        return min(waits + [PAUSE] * bool(self._unsent), default=None)

    def _send_unsent(self) -> None:
        while self._unsent:
            try:
                self._send(REVOKE, **self._unsent[0])
            except BrokerUnavailable:
                return
            self._unsent.popleft()

    def _run_checks(self) -> None:
        """Runs all checks that are scheduled for now or earlier."""
        for count in itertools.count(1):
            with self._lock:
                if not self._checks or self._checks[0][0] > time.monotonic():
                    return
                watched = heapq.heappop(self._checks)[2]
            if watched.stream.connection in self._watched:
                self._check(watched)
            if count % MAX_RUN == 0:
                time.sleep(0)

    def _check(self, watched: WatchedStream) -> None:
        now = time.monotonic()
        if watched.stream not in self._hub:
            self._watched.pop(watched.stream.connection, None)
        elif watched.expires is not None and watched.expires <= now:
            notice = error_frame(ErrorCode.AUTH_EXPIRED, "the token has expired: log in again", {})
            self._close_stream(watched, "expired", reconnect=False, notice=notice)
        elif watched.opened < self._commands_lost_at:
            self._close_stream(watched, "recheck", reconnect=True)
        else:
            self._check_channels(watched, now)

    def _check_channels(self, watched: WatchedStream, now: float) -> None:
        stream, pause = watched.stream, self._interval * random.uniform(EARLIEST, 1)
        try:
            channels = [name for name in stream.channels if name not in stream.app_joined]
            forbidden = self._find_forbidden(stream.grant, channels)
        except Exception:
            self._note_failure(watched)
            pause = min(pause, PAUSE)
        else:
            watched.failures, self._failing = 0, False
            if forbidden is None:
                self._close_stream(watched, "revoked", reconnect=False)
                return
            if forbidden:
                self._remove_channels(stream, forbidden)
        self._schedule(watched, now + pause)

    def _note_failure(self, watched: WatchedStream) -> None:
        watched.failures += 1
        if not self._failing:  # logs the first failure only, not a failure of every stream
            self._failing = True
            logger.error("the rights of open streams could not be checked; trying again in %g s", PAUSE)
        if watched.failures >= MAX_FAILURES:
            self._close_stream(watched, "recheck", reconnect=True)

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
        """Ends the recheck thread. May be called twice."""
        self._closed = True
        self._wake.set()


def forbidden_frames(channels: Iterable[str]) -> bytes:
    """Returns the frames of `sse.error` events with code 1201, one for each channel that a stream loses."""
    return b"".join(
        error_frame(
            ErrorCode.PERMISSION_DENIED, f"listening to {name!r} is not allowed any more", {"channel": name}
        )
        for name in channels
    )
