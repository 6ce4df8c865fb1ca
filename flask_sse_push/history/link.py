"""The ear of a worker: the one thread that owns the link to the broker, and renews it when it breaks.

A link counts as broken also when what the broker owes it does not come: an echo of each history call, which
proves that publications arrive here, and the confirmation of each subscription.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..brokers.base import Broker, Echo, Link, LinkMessage, Subscribed
from ..errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Channels in one SUBSCRIBE.
MAX_AT_ONCE = 500
#: Seconds a read waits at most, so that closing and silence are noticed.
READ_TIMEOUT = 0.5
#: Seconds between tries to connect, doubled each time; the first is short, for a restart of the broker.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class LinkReader:
    """Keeps a link alive and passes on what it hears.

    :param deliver: gets the signals of one read; None when the link is lost. May block.
    :param silence: seconds after which a link that brings nothing, or not what is due, counts as dead.
    """

    def __init__(
        self, broker: Broker, inbox: str, deliver: Callable[[list[LinkMessage] | None], None], silence: float
    ) -> None:
        self._broker = broker
        self._inbox = inbox
        self._deliver = deliver
        self._silence = silence
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._changes: dict[str, bool] = {}  # True: subscribe, False: unsubscribe
        self._unconfirmed: dict[str, float] = {}  # channels asked for, since when (monotonic seconds)
        self._asked: Counter[str] = Counter()  # confirmations under way on this link, by channel
        self._echo_due: float | None = None  # since when an echo is under way
        self._closed = False
        self.connected = False
        self.heard_at = 0.0  # monotonic time of the last signal
        self.proved_at = 0.0  # monotonic time of the last echo
        self.probe_seconds: float | None = None  # what the last echo took
        self._down_since: float | None = None  # monotonic time; None while all is well
        self.reconnects = -1  # the first connection is none

    def subscribe(self, channels: Iterable[str]) -> None:
        """Asks for channels from now on, on every link. Does not block; `poke` hastens it."""
        with self._lock:
            for name in channels:
                self._wanted[name] = None
                self._changes[name] = True

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Lets channels go. Does not block."""
        if not channels:
            return
        with self._lock:
            for name in channels:
                self._wanted.pop(name, None)
                self._changes[name] = False

    def poke(self) -> None:
        """Makes the reader look at the changes now. Costs a round trip to the broker; never raises."""
        if self.connected and self._changes:
            self._broker.wake(self._inbox)

    def expect_echo(self, due: bool) -> None:
        """Notes that an echo is on its way, or that none is: the call which was to send it failed."""
        if not due:
            self._echo_due = None
        elif self._echo_due is None:
            self._echo_due = time.monotonic()

    def run(self) -> None:
        """Reads until closed. Meant to be a thread's body."""
        pause = FIRST_PAUSE
        while not self._closed:
            try:
                link = self._connect()
            except BrokerUnavailable as error:
                if pause == FIRST_PAUSE:
                    self._log_down("cannot reach the broker, trying again: %s", error)
                time.sleep(pause * (0.5 + random.random() / 2))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._log_up()
            try:
                self._read(link)
            except BrokerUnavailable as error:
                if not self._closed:
                    self._log_down("the link to the broker broke, connecting anew: %s", error)
            except Exception:
                logger.exception("reading from the broker failed, connecting anew")  # never deaf for good
                time.sleep(LONGEST_PAUSE)
            finally:
                self.connected = False
                link.close()
            self._deliver(None)

    def _log_down(self, text: str, error: BrokerUnavailable) -> None:
        self._down_since = self._down_since or time.monotonic()
        logger.warning(text, error, extra={"event": "broker_down", "why": str(error)})

    def _log_up(self) -> None:
        if self._down_since is not None:
            seconds = round(time.monotonic() - self._down_since, 3)
            self._down_since = None
            extra = {"event": "broker_up", "seconds": seconds}
            logger.warning("the broker is back after %.1f seconds", seconds, extra=extra)

    def _connect(self) -> Link:
        link = self._broker.link(self._inbox)
        with self._lock:
            self._changes.clear()
            wanted = list(self._wanted)
        self._unconfirmed.clear()
        self._asked.clear()
        self._echo_due = None
        try:
            self._subscribe(link, wanted)
        except BrokerUnavailable:
            link.close()
            raise
        self.reconnects += 1
        self.heard_at = time.monotonic()
        self.connected = True
        return link

    def _read(self, link: Link) -> None:
        while not self._closed:
            self._apply_changes(link)
            signals = link.read(READ_TIMEOUT)
            now = time.monotonic()
            if signals:
                self.heard_at = now
                self._deliver(self._tick_off(signals, now))
            # What comes may be a backlog, with what is due at its end.
            self._check(now, 1.5 * self._silence if signals else self._silence)

    def _tick_off(self, signals: Iterable[LinkMessage], now: float) -> list[LinkMessage]:
        """Notes what came of what was asked for; returns the signals that count."""
        counting = []
        for signal in signals:
            if isinstance(signal, Echo):
                if self._echo_due is not None:
                    self.probe_seconds = now - self._echo_due
                self.proved_at, self._echo_due = now, None
            elif isinstance(signal, Subscribed) and not self._is_newest(signal.channel):
                continue
            counting.append(signal)
        return counting

    def _is_newest(self, name: str) -> bool:
        """Whether a confirmation is that of the channel's newest subscription.

        Between an earlier one and that it may have been let go: what came meanwhile was not heard.
        """
        self._asked[name] -= 1
        if self._asked[name] > 0:
            return False
        del self._asked[name]
        self._unconfirmed.pop(name, None)
        return True

    def _check(self, now: float, silence: float) -> None:
        waited = now - min(self.heard_at, self._echo_due or now)
        if waited > silence:
            raise BrokerUnavailable(f"no probe came back for {waited:.1f} seconds")
        waited = now - next(iter(self._unconfirmed.values()), now)
        if waited > silence:
            raise BrokerUnavailable(f"a subscription was not confirmed for {waited:.1f} seconds")

    def _apply_changes(self, link: Link) -> None:
        if not self._changes:
            return
        with self._lock:
            changes, self._changes = self._changes, {}
        gone = [name for name, wanted in changes.items() if not wanted]
        for name in gone:
            self._unconfirmed.pop(name, None)
        for at in range(0, len(gone), MAX_AT_ONCE):
            link.unsubscribe(gone[at : at + MAX_AT_ONCE])
        self._subscribe(link, [name for name, wanted in changes.items() if wanted])

    def _subscribe(self, link: Link, names: Sequence[str]) -> None:
        now = time.monotonic()
        for at in range(0, len(names), MAX_AT_ONCE):
            some = names[at : at + MAX_AT_ONCE]
            self._unconfirmed.update(dict.fromkeys(some, now))
            self._asked.update(some)
            link.subscribe(some)

    def close(self) -> None:
        """Lets `run` return soon."""
        self._closed = True
