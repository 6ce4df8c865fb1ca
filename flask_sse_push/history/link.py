"""The link reader: the thread of a worker that reads the link to the broker and renews it when it breaks.

The reader also treats a link as broken when a reply does not arrive in time. Such a reply is the echo of a
history call, which proves that events arrive, or the confirmation of a subscription.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..brokers.base import READ_TIMEOUT, Broker, Echo, Link, LinkMessage, Subscribed
from ..errors import BrokerUnavailable
from ..protocol.entry import Entry

logger = logging.getLogger(__name__)

#: At most how many channels one SUBSCRIBE or UNSUBSCRIBE names.
MAX_AT_ONCE = 500
#: Seconds between attempts to connect. The pause doubles each time, and half of it is random. The first pause
#: is short because the broker may only be restarting.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: While messages come without a pause, the reader lets other threads run after this many seconds.
YIELD_EVERY = 0.01
#: A read never computes for this many seconds. So if it took longer, it has waited, and other threads ran.
WAITED = 0.005
#: How many microseconds an id may be ahead of the position that the broker should have reached by now.
#: Between two replies, the clocks of the broker and of the worker drift apart by some milliseconds.
ALLOWANCE = 100_000
#: At most this many echoes wait for their replies, and at most this many replies wait for their echoes.
MAX_WAITING = 100


class LinkReader:
    """Keeps a link to the broker open and passes the messages that it reads to `put`.

    :param put: called with the number of the shard and the messages of one read. Instead of the messages it
        gets None if the link broke. May block.
    :param silence: seconds without a message, or without an expected reply, after which the link is renewed.
    :param number: the number of the shard.
    :param declares: whether to tell the broker the channel policies of this process before the first link.
    """

    def __init__(
        self,
        broker: Broker,
        inbox: str,
        put: Callable[[tuple[int, list[LinkMessage] | None]], None],
        silence: float,
        number: int = 0,
        declares: bool = False,
    ) -> None:
        self._must_declare = declares
        self._broker = broker
        self._inbox = inbox
        self._put = put
        self._silence = silence
        self._number = number
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._changes: dict[str, bool] = {}  # True: subscribe the channel; False: unsubscribe it
        self._unconfirmed: dict[str, float] = {}  # for each channel, the monotonic time of its SUBSCRIBE
        self._expected: Counter[str] = Counter()  # for each channel, how many confirmations must still arrive
        self._echo_since: float | None = None  # monotonic time of a call whose echo has not arrived
        self._closed = False
        self._link: Link | None = None  # the link; kept after it broke, until `put` knows
        self._renews = False  # whether the link must be dropped, though it works
        #: Dispatches messages at once and returns True; or returns False, so that they go to `put`.
        self.dispatch_now: Callable[[tuple[int, list[LinkMessage]]], bool] = lambda item: False
        self.connected = False
        self.heard_at = 0.0  # monotonic time of the last message
        self.proved_at = 0.0  # monotonic time of the last echo
        self.probe_seconds: float | None = None  # how long the last echo took, in seconds
        self._down_since: float | None = None  # monotonic time when the link broke; None while the link is up
        self.reconnects = -1  # starts at -1 because the first connection is not a reconnect

    def subscribe(self, channels: Iterable[str]) -> None:
        """Subscribes channels, on this link and on every later link. Does not block; see `poke`."""
        with self._lock:
            for name in channels:
                self._wanted[name] = None
                self._changes[name] = True

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Unsubscribes channels. Does not block."""
        with self._lock:
            for name in channels:
                self._wanted.pop(name, None)
                self._changes[name] = False

    def poke(self) -> None:
        """Makes the reader's thread send its subscriptions and unsubscriptions now, if there are any.

        This costs a round trip to the broker. Never raises.
        """
        if self._changes and self.connected:
            self._broker.wake(self._inbox)

    def renew(self) -> None:
        """Makes the reader's thread drop the link and open a new one. Does not block."""
        self._renews = True

    def expect_echo(self, expected: bool) -> None:
        """Notes that an echo will arrive. If `expected` is False, the call failed and no echo will arrive."""
        if not expected:
            self._echo_since = None
        elif self._echo_since is None:
            self._echo_since = time.monotonic()

    def run(self) -> None:
        """Reads from the broker until `close` is called. This is the main function of the reader's thread.

        If something has ended the thread, the next thread calls this method again.
        """
        pause = FIRST_PAUSE
        while not self._closed:
            self._drop_link()
            try:
                self._link = self._connect()
            except BrokerUnavailable as error:
                if pause == FIRST_PAUSE:
                    self._log_down("cannot reach the broker; trying again: %s", error)
                pause = self._rest(pause)
                continue
            self._log_up()
            connected_at = time.monotonic()
            try:
                self._read(self._link)
            except BrokerUnavailable as error:
                if not self._closed:
                    self._log_down("the link to the broker broke; connecting again: %s", error)
                    broke_soon = time.monotonic() - connected_at < pause
                    pause = self._rest(pause) if broke_soon else FIRST_PAUSE
            except Exception:
                # The thread must survive any error: without this thread the worker would get no more events.
                logger.exception("reading from the broker failed; connecting again")
                pause = self._rest(LONGEST_PAUSE)
        self._drop_link()

    def _rest(self, pause: float) -> float:
        self.connected = False
        time.sleep(pause * (0.5 + random.random() / 2))
        return min(pause * 2, LONGEST_PAUSE)

    def _drop_link(self) -> None:
        """Closes the link and tells `put` that it is gone. Does nothing without a link."""
        self.connected = False
        if self._link is not None:
            self._link.close()
            self._put((self._number, None))
            self._link = None  # only now: a thread that is ended before leaves the rest to the next thread

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
        if self._must_declare:
            self._broker.declare()
            self._must_declare = False
        with self._lock:
            self._changes.clear()
            wanted = list(self._wanted)
        self._unconfirmed.clear()
        self._expected.clear()
        self._echo_since = None
        self._renews = False
        try:
            self._subscribe(link, wanted)
        except BaseException:
            link.close()
            raise
        self.reconnects += 1
        self.heard_at = time.monotonic()
        self.connected = True
        return link

    def _read(self, link: Link) -> None:
        yields_at = time.monotonic() + YIELD_EVERY
        while not self._closed:
            if self._renews:
                raise BrokerUnavailable("the worker asked for a new link after an error")
            if self._changes:
                self._apply_changes(link)
            began = time.monotonic()
            messages = link.read(READ_TIMEOUT)
            now = time.monotonic()
            if now - began > WAITED:
                yields_at = now + YIELD_EVERY
            if messages:
                self.heard_at = now
                if not self.dispatch_now((self._number, messages)):  # it takes only events, no replies
                    self._put((self._number, self._note_replies(messages, now)))
            if not messages:
                self._check_silence(now, self._silence)
            elif self._echo_since is not None or self._unconfirmed:
                # Messages that waited for long may have the expected reply at their end, so wait longer.
                self._check_silence(now, 1.5 * self._silence)
            if now >= yields_at:
                time.sleep(0)
                yields_at = now + YIELD_EVERY

    def _note_replies(self, messages: Iterable[LinkMessage], now: float) -> list[LinkMessage]:
        """Notes the echoes and confirmations among the messages.

        :returns: the messages without the confirmations of earlier subscriptions of a channel.
        """
        kept = []
        for message in messages:
            if isinstance(message, Echo):
                if self._echo_since is not None:
                    self.probe_seconds = now - self._echo_since
                self.proved_at, self._echo_since = now, None
            elif isinstance(message, Subscribed) and not self._confirms_newest(message.channel):
                continue
            kept.append(message)
        return kept

    def _confirms_newest(self, name: str) -> bool:
        """Whether a confirmation belongs to the channel's newest SUBSCRIBE.

        If the confirmation belongs to an earlier SUBSCRIBE, the channel may have been unsubscribed since. So
        events may be missing.
        """
        self._expected[name] -= 1
        if self._expected[name] > 0:
            return False
        del self._expected[name]
        self._unconfirmed.pop(name, None)
        return True

    def _check_silence(self, now: float, silence: float) -> None:
        waited = now - min(self.heard_at, self._echo_since or now)
        if waited > silence:
            raise BrokerUnavailable(f"no probe came back for {waited:.1f} seconds")
        waited = now - next(iter(self._unconfirmed.values()), now)
        if waited > silence:
            raise BrokerUnavailable(f"the broker did not confirm a subscription for {waited:.1f} seconds")

    def _apply_changes(self, link: Link) -> None:
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
            self._expected.update(some)
            link.subscribe(some)

    def close(self) -> None:
        """Makes `run` return soon."""
        self._closed = True


class Heard:
    """The newest position that the link has reached, in the epoch of the newest reply.

    Anyone who may publish on the server can forge a message, but not the reply to a call. So a message counts
    only within the bounds that replies set.
    """

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.id = 0  # the highest id that arrived over the link in `epoch`; -1 if none has arrived yet
        self.in_part = False  # whether the event `id` may still arrive on more channels
        # The highest believable id is this number, plus the microseconds of monotonic time.
        self._bound = -math.inf
        self._echoes: OrderedDict[Echo, int] = OrderedDict()  # echoes without a reply: `id` when they arrived
        self._replies: OrderedDict[Echo, bool] = OrderedDict()  # replies whose echo has not arrived

    def begin(self, epoch: str | None) -> None:
        """Forgets what was heard, because from now on only messages of this epoch count."""
        self.epoch, self.id, self.in_part = epoch, -1, False

    def believes(self, id: int) -> bool:
        """Whether the broker can have reached the position `id` by now.

        Positions grow no faster than the broker's clock: a broker makes less than a million in one second.
        They jump only if the clock is set forward.
        """
        return id <= time.monotonic() * 1e6 + self._bound

    def note_event(self, entry: Entry) -> bool:
        """Notes an event that has arrived.

        :returns: False if the broker cannot have reached the event's id in this epoch yet, or if a higher id
            has arrived before: then this message or an earlier one was forged.
        """
        if self.id < entry.id <= time.monotonic() * 1e6 + self._bound and entry.epoch == self.epoch:
            self.id, self.in_part = entry.id, entry.shared
            return True
        return entry.id == self.id and entry.epoch == self.epoch

    def note_reply(self, echo: Echo, sent_at: float) -> bool:
        """Notes the position in a reply. Its echo may have arrived, or arrives soon.

        :returns: False if the link has brought an id before the echo that is higher: then that id was forged.
        """
        self._bound = echo.last - sent_at * 1e6 + ALLOWANCE
        if echo in self._echoes:
            return self._match(echo, self._echoes.pop(echo))
        _add(self._replies, echo, True)
        return True

    def note_echo(self, echo: Echo) -> bool:
        """Notes an echo. Returns the same as `note_reply`.

        The echo counts only when a reply confirms it: another program may publish to the inbox.
        """
        before = self.id if echo.epoch == self.epoch else -1
        if self._replies.pop(echo, False):
            return self._match(echo, before)
        _add(self._echoes, echo, before)
        return True

    def _match(self, echo: Echo, before: int) -> bool:
        if echo.epoch != self.epoch:
            return True
        # While the broker refuses writes, the echo has no new position, but all before it has arrived.
        if echo.last >= self.id:
            self.id, self.in_part = echo.last, False
        return before <= echo.last


def _add(waiting: OrderedDict[Echo, Any], echo: Echo, value: int) -> None:
    waiting[echo] = value
    if len(waiting) > MAX_WAITING:
        waiting.popitem(last=False)
