"""Whether open streams may stay: asked again and again, when a token expires, and at once when told to.

Streams of nobody that have public channels alone are not looked at and cost nothing.
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
from typing import Any

from ..errors import BrokerUnavailable, ErrorCode
from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..protocol.command import REVOKE
from ..protocol.frames import error_frame

logger = logging.getLogger(__name__)

#: A check takes place after this share of the interval at the earliest: streams that came together part.
EARLIEST = 0.75
#: Seconds until a check that failed, or a command that could not be sent, is tried again.
PAUSE = 1.0
#: Failed checks in a row after which a stream is sent away, to come in by the door.
MAX_FAILURES = 3
#: Seconds that a command is remembered for streams whose user was looked up before it came.
REMEMBERED = 30.0
#: Commands that wait for the broker to come back; the oldest goes first.
MAX_UNSENT = 1000
#: Checks in a row before other threads get a turn.
MAX_RUN = 20

#: Which of `channels` a grant does not allow any more; None when its user is nobody any more. May block and
#: raise.
FindForbidden = Callable[[Any, Collection[str]], "list[str] | None"]


class Watch:
    """A stream that is looked after. Times are monotonic seconds."""

    __slots__ = ("expires", "failures", "opened", "stream")

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.opened = now
        # The deadline is on the wall clock; what is left of it is not.
        expires = stream.grant and stream.grant.identity.expires
        self.expires = None if expires is None else now + expires - time.time()
        self.failures = 0


class Recheck(StreamListener):
    """Looks after this worker's streams by a thread of its own, which starts with the first of them.

    :param interval: seconds between two checks of a stream, at most.
    :param send: publishes a command; raises BrokerUnavailable.
    """

    def __init__(self, judge: FindForbidden, interval: float, send: Callable[..., Any]) -> None:
        self._judge = judge
        self._interval = interval
        self._send = send
        self._hub: Hub
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._watches: dict[str, Watch] = {}
        self._due: list[tuple[float, int, Watch]] = []  # a heap
        self._numbers = itertools.count()
        self._heard: deque[tuple[float, Mapping[str, Any]]] = deque()
        self._unsent: deque[dict[str, Any]] = deque(maxlen=MAX_UNSENT)
        self._unsure_before = 0.0
        self._failing = self._started = self._closed = False

    def look_after(self, hub: Hub) -> None:
        """Obeys the commands that `hub` hears, and ends its streams."""
        self._hub = hub
        hub.commands.on(REVOKE, self._obey, late=self._obey_late)
        hub.commands.on_lost(self._lost)

    # -- streams ----------------------------------------------------------------------------------------

    def opened(self, stream: Stream) -> None:
        if stream.grant is None:
            return
        with self._lock:
            self._watch(stream)
            missed = [arguments for at, arguments in self._heard if at >= stream.grant.began]
        for arguments in missed:
            if arguments["user_id"] == stream.user_id:
                self._hub.call_soon(lambda arguments=arguments: self._take(arguments, [stream]))  # type: ignore[misc]
        self._start()

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        if joined and stream.connection not in self._watches:
            with self._lock:
                self._watch(stream)
            self._start()

    def _watch(self, stream: Stream) -> None:
        now = time.monotonic()
        watch = self._watches[stream.connection] = Watch(stream, now)
        self._schedule(watch, now + self._interval * random.uniform(EARLIEST, 1))

    def closed(self, stream: Stream) -> None:
        self._watches.pop(stream.connection, None)

    def _schedule(self, watch: Watch, due: float) -> None:
        if watch.expires is not None:
            due = min(due, watch.expires)
        heapq.heappush(self._due, (due, next(self._numbers), watch))
        if self._due[0][2] is watch:
            self._wake.set()

    # -- commands ---------------------------------------------------------------------------------------

    def revoke_later(self, **arguments: Any) -> None:
        """Takes from this worker's streams now what the others are told as soon as the broker is back."""
        self._hub.call_soon(lambda: self._obey(arguments))
        self._unsent.append(arguments)
        self._wake.set()
        self._start()

    def _obey_late(self, arguments: Mapping[str, Any], at: float) -> list[Effect]:
        """A command from before this worker heard any: for streams whose user had been looked up by then."""
        if at < time.monotonic() - REMEMBERED:
            return []
        self._remember(at, arguments)
        streams = self._hub.disconnector.matching(user_id=arguments["user_id"])
        return self._take(
            arguments, [stream for stream in streams if stream.grant and stream.grant.began <= at]
        )

    def _remember(self, at: float, arguments: Mapping[str, Any]) -> None:
        with self._lock:
            while self._heard and self._heard[0][0] < at - REMEMBERED:
                self._heard.popleft()
            self._heard.append((at, arguments))

    def _obey(self, arguments: Mapping[str, Any]) -> list[Effect]:
        self._remember(time.monotonic(), arguments)
        return self._take(arguments, self._hub.disconnector.matching(user_id=arguments["user_id"]))

    def _take(self, arguments: Mapping[str, Any], streams: Iterable[Stream]) -> list[Effect]:
        channel, reason = arguments.get("channel"), str(arguments.get("reason", "revoked"))
        if channel is None:
            return self._hub.disconnector.dismiss(streams, reason, reconnect=False)
        notice = forbidden([channel])
        return [
            effect
            for stream in streams
            for effect in self._hub.disconnector.withdraw(stream, [channel], reason, notice)
        ]

    def _lost(self) -> None:
        """Commands were lost: nobody's rights are sure until they have come in by the door again."""
        self._unsure_before = time.monotonic()

    # -- the thread -------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._started:
            with self._lock:
                first, self._started = not self._started, True
            if first:
                threading.Thread(target=self.run, name="flask-sse-push-guard", daemon=True).start()

    def run(self) -> None:
        """Checks until closed. Meant to be a thread's body."""
        while not self._closed:
            self._wake.wait(self._patience(time.monotonic()))
            self._wake.clear()
            try:
                self._send_unsent()
                self._check_due()
            except Exception:
                logger.exception("the guard failed, trying again")
                time.sleep(PAUSE)

    def _patience(self, now: float) -> float | None:
        with self._lock:
            waits = [max(0.0, self._due[0][0] - now)] if self._due else []
        return min(waits + [PAUSE] * bool(self._unsent), default=None)

    def _send_unsent(self) -> None:
        while self._unsent:
            try:
                self._send(REVOKE, **self._unsent[0])
            except BrokerUnavailable:
                return
            self._unsent.popleft()

    def _check_due(self) -> None:
        for count in itertools.count(1):
            with self._lock:
                if not self._due or self._due[0][0] > time.monotonic():
                    return
                watch = heapq.heappop(self._due)[2]
            if watch.stream.connection in self._watches:
                self._check(watch)
            if count % MAX_RUN == 0:
                time.sleep(0)

    def _check(self, watch: Watch) -> None:
        if watch.stream not in self._hub:
            self._watches.pop(watch.stream.connection, None)
            return
        now = time.monotonic()
        again = self._interval * random.uniform(EARLIEST, 1)
        if watch.expires is not None and watch.expires <= now:
            self._end(
                watch, "expired", reconnect=False, notice=_error(ErrorCode.AUTH_EXPIRED, "log in again")
            )
            return
        if watch.opened < self._unsure_before:
            self._end(watch, "recheck", reconnect=True)
            return
        try:
            stream = watch.stream
            lost = self._judge(stream.grant, [name for name in stream.channels if name not in stream.vouched])
        except Exception:
            self._note_failure(watch)
            again = min(again, PAUSE)
        else:
            watch.failures, self._failing = 0, False
            if lost is None:
                self._end(watch, "revoked", reconnect=False)
                return
            if lost:
                self._withdraw(watch.stream, lost)
        with self._lock:
            self._schedule(watch, now + again)

    def _note_failure(self, watch: Watch) -> None:
        watch.failures += 1
        if not self._failing:  # once, not for every stream
            self._failing = True
            logger.exception("whether streams may stay could not be told; they are asked about again")
        if watch.failures >= MAX_FAILURES:
            self._end(watch, "recheck", reconnect=True)

    def _end(self, watch: Watch, reason: str, *, reconnect: bool, notice: bytes = b"") -> None:
        streams = [watch.stream]
        self._watches.pop(watch.stream.connection, None)
        self._hub.call_soon(
            lambda: self._hub.disconnector.dismiss(streams, reason, reconnect=reconnect, notice=notice)
        )

    def _withdraw(self, stream: Stream, channels: list[str]) -> None:
        self._hub.call_soon(
            lambda: self._hub.disconnector.withdraw(stream, channels, "revoked", forbidden(channels))
        )

    def close(self) -> None:
        """Ends the thread; may be called twice."""
        self._closed = True
        self._wake.set()


def forbidden(channels: Iterable[str]) -> bytes:
    """An `sse.error` 1201 for each channel that the stream no longer gets."""
    return b"".join(
        _error(ErrorCode.PERMISSION_DENIED, f"listening to {name!r} is not allowed any more", channel=name)
        for name in channels
    )


def _error(code: ErrorCode, message: str, **details: Any) -> bytes:
    return error_frame(code, message, details)
