"""Checks whether open streams may stay: at intervals, when an identity expires, and when a command revokes.

A stream that opened without a user, on public channels only, is not checked, until it joins a channel.
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
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.command import REVOKE
from ..protocol.frames import error_frame

logger = logging.getLogger(__name__)

#: The earliest check comes after this share of the interval. So streams that opened together are not checked
#: together for ever.
EARLIEST = 0.75
#: Seconds until a failed check is repeated, and until a command that could not be sent is sent again.
PAUSE = 1.0
#: Failed checks in a row after which the stream ends; its client reconnects and is checked like a new one.
MAX_FAILURES = 3
#: Seconds that a revocation is kept for streams whose user was looked up before it came.
REVOCATIONS_KEPT = 30.0
#: Commands that wait until the broker is back. One more drops the oldest.
MAX_UNSENT = 1000
#: Checks in a row after which other threads get a turn.
MAX_RUN = 20

#: Returns the channels that a grant no longer allows; None if its user may not listen at all any more. May
#: block and raise.
FindForbidden = Callable[[Any, Collection[str]], "list[str] | None"]


class WatchedStream:
    """A stream whose rights are checked. Times are monotonic seconds."""

    __slots__ = ("expires", "failures", "opened", "stream")

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.opened = now
        # `Identity.expires` is wall-clock time. From here on a change of the clock does not matter.
        expires = stream.grant and stream.grant.identity.expires
        self.expires = None if expires is None else now + expires - time.time()
        self.failures = 0  # in a row


class Recheck(StreamListener):
    """Checks this worker's streams in a thread of its own, which starts with the first of them.

    :param interval: seconds between two checks of a stream, at most.
    :param send: publishes a command; raises BrokerUnavailable.
    """

    def __init__(self, find_forbidden: FindForbidden, interval: float, send: Callable[..., Any]) -> None:
        self._find_forbidden = find_forbidden
        self._interval = interval
        self._send = send
        self._hub: Hub
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watched: dict[str, WatchedStream] = {}  # by connection
        self._checks: list[tuple[float, int, WatchedStream]] = []  # a heap by time; ended ones are skipped
        self._numbers = itertools.count()  # keep the heap from comparing streams
        self._revocations: deque[tuple[float, Mapping[str, Any]]] = deque()  # recent ones, with their times
        self._unsent: deque[dict[str, Any]] = deque(maxlen=MAX_UNSENT)
        self._commands_lost_at = 0.0
        self._failing = self._started = self._closed = False

    def attach(self, hub: Hub) -> None:
        """Handles the `revoke` commands that `hub` receives, and ends streams of `hub`."""
        self._hub = hub
        hub.commands.on(REVOKE, self._revoke, late=self._revoke_late)
        hub.commands.on_lost(self._note_lost_commands)

    # -- streams ----------------------------------------------------------------------------------------

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

    # -- revocations ------------------------------------------------------------------------------------

    def revoke_without_broker(self, **arguments: Any) -> None:
        """Revokes on this worker now, and sends the command to the others once the broker is back."""
        self._hub.call_soon(partial(self._revoke, arguments))
        self._unsent.append(arguments)
        self._wake.set()
        self._ensure_thread()

    def _revoke(self, arguments: Mapping[str, Any]) -> list[Effect]:
        self._keep(time.monotonic(), arguments)
        return self._revoke_from(self._hub.disconnector.find(user_id=arguments["user_id"]), arguments)

    def _revoke_late(self, arguments: Mapping[str, Any], at: float) -> list[Effect]:
        """Handles a command from before this worker subscribed. It counts for streams whose user had been
        looked up by then."""
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
        """A revocation may be among the lost commands: all streams opened before now have to reconnect."""
        self._commands_lost_at = time.monotonic()

    # -- the thread -------------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                threading.Thread(target=self.run, name="flask-sse-push-recheck", daemon=True).start()

    def run(self) -> None:
        """Checks streams until `close`. The body of the thread."""
        while not self._closed:
            self._wake.wait(self._seconds_to_wait(time.monotonic()))
            self._wake.clear()
            try:
                self._send_unsent()
                self._run_checks()
            except Exception:
                logger.exception("rechecking streams failed; trying again in %g s", PAUSE)
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
        """Runs the checks whose time has come."""
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
        if not self._failing:  # one line in the log, not one for each stream
            self._failing = True
            logger.exception("the rights of open streams could not be checked; trying again in %g s", PAUSE)
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
        """Ends the thread. May be called twice."""
        self._closed = True
        self._wake.set()


def forbidden_frames(channels: Iterable[str]) -> bytes:
    """Returns an `sse.error` 1201 for each channel that the stream loses."""
    return b"".join(
        error_frame(
            ErrorCode.PERMISSION_DENIED, f"listening to {name!r} is not allowed any more", {"channel": name}
        )
        for name in channels
    )
