"""Two workers, and users whose rights end while the app's rules are asked. Checks what each stream gets.

The app's rules take time: they look up the answer at once, and return it as late as the test likes. The world
numbers everything that happens. An event must not reach a stream if the user lost the right to all of the
event's channels after the app was asked about them, and before the event was published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from flask_sse_push.auth.policy import Grant
from flask_sse_push.auth.tickets import Ticket
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub.disconnect import forbidden_frames
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.command import REVOKE, Command, command_publication
from flask_sse_push.protocol.cursor import EARLIEST
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.protocol.event import make_event
from tests.support.policies import keeping

from .stepping import CLOCK, SETTINGS, Primary, Worker

CHANNELS = ("a", "b", "c")
#: The last user never loses a right.
USERS = ("ada", "bob", "eve")
LUCKY = USERS[-1]
#: The simulation's clock stands still between two steps, but ids of the broker grow. A request begins so many
#: seconds before the clock's time, so that its beginning is not later than the ids that follow it.
TICK = 0.001
#: So much history that no command and no event is trimmed: lost commands have other tests.
POLICIES = keeping(1000, 10_000.0)
ROOMY = replace(SETTINGS, history_size=1000, catch_up_page=1_000_000, catch_up_bytes=32_000_000)


class Revoked(NamedTuple):
    """The end of a right."""

    number: int
    user: str
    channel: str | None  # None: of all channels


class Asked(NamedTuple):
    """A question to the app's rules whose answer is on its way."""

    number: int
    finish: Callable[[], None]


class UserStream(Stream):
    """A stream that checks each event that it gets."""

    def __init__(self, world: RightsWorld, worker: Worker, user: str, licences: dict[str, int]) -> None:
        super().__init__(f"s{world.next()}", user, tuple(licences))
        self.world = world
        self.worker = worker
        self.licences = licences  # for each channel, when the app was asked about it last
        self.reasons: list[str] = []  # why channels, or the stream itself, ended
        self.got: list[int] = []
        self.joined: set[str] = set()  # the channels of `sse.channels`
        self.open = self.recovers = True
        self.recovery: Any = None

    def write(self, chunk: bytes) -> None:
        if self.open:
            self._read(chunk)

    def end(self, frame: bytes) -> None:
        if self.open:
            self._read(frame)
            self.leave()

    def leave(self) -> None:
        self.open = False
        self.worker.hub.leave(self)

    def cut_if_stuck(self, now: float) -> bool:
        return False

    def _read(self, frames: bytes) -> None:
        text = frames.decode()
        for number in map(int, re.findall(r"E(\d+)E", text)):
            self.got.append(number)
            self.world.check(self, number)
        for name in re.findall(r'"joined":\["([abc])"', text):
            self.joined.add(name)
        self.reasons += re.findall(r'"reason":"(revoked|recheck)"', text)
        self.reasons += re.findall(r'"code":1201,.*?"channel":"([abc])"', text)


class RightsWorld:
    """The broker, two workers, the users' rights, and a method for each thing that can happen."""

    def __init__(self) -> None:
        CLOCK.reset()
        self.broker = Primary(POLICIES, "e0")
        self.workers = [Worker([self.broker], ROOMY) for _ in range(2)]
        self.allowed = {(user, channel) for user in USERS for channel in CHANNELS}
        self.revoked: list[Revoked] = []
        self.events: dict[int, frozenset[str]] = {}
        self.streams: list[UserStream] = []
        self.asked: list[Asked] = []
        self.tickets: list[tuple[Ticket, dict[str, int]]] = []
        self.caught = 0  # how many rights ended while the app was being asked about them
        self._number = self._epoch = 0

    def next(self) -> int:
        self._number += 1
        return self._number

    # -- the rules ----------------------------------------------------------------------------------------

    def allow(self, user: str) -> None:
        self.allowed |= {(user, channel) for channel in CHANNELS}

    def revoke(self, user: str, channel: str | None) -> None:
        """The rules change first, then the app calls `revoke`."""
        self.allowed -= {(user, name) for name in CHANNELS if channel in (None, name)}
        self.revoked.append(Revoked(self.next(), user, channel))
        arguments = {"user_id": user, "channel": channel, "reason": "revoked"}
        self.broker.publish([command_publication(Command(REVOKE, arguments))])

    def _ask(self, user: str, channels: Iterable[str], finish: Callable[[int], None]) -> None:
        """Asks the rules. If they allow all channels, `finish` is called when `answer` lets them return."""
        number = self.next()
        if all((user, name) in self.allowed for name in channels):
            self.asked.append(Asked(number, lambda: finish(number)))

    def answer(self, index: int) -> None:
        """Lets the rules return one of their answers."""
        if self.asked:
            asked = self.asked.pop(index % len(self.asked))
            self.caught += any(revoked.number > asked.number for revoked in self.revoked)
            asked.finish()

    # -- requests ----------------------------------------------------------------------------------------

    def connect(self, worker: int, user: str, channels: tuple[str, ...], *, missed: bool) -> None:
        began = CLOCK.now - TICK

        def finish(number: int) -> None:
            self._open(worker, user, dict.fromkeys(channels, number), began, missed=missed)

        self._ask(user, channels, finish)

    def _open(
        self,
        worker: int,
        user: str,
        licences: dict[str, int],
        began: float,
        *,
        missed: bool,
        ticket: Ticket | None = None,
    ) -> None:
        stream = UserStream(self, self.workers[worker], user, licences)
        stream.grant = Grant(
            user_id=user, channels=tuple(licences), ticket=ticket, began=began, can_change=True
        )
        start = StartPoint(EARLIEST if missed else None)
        stream.recovery = stream.worker.hub.recovery(stream.subscribed, start)
        self.streams.append(stream)
        stream.worker.hub.open(stream)

    def _position(self) -> str:
        return str(self.broker.probe("nobody"))

    def sign(self, user: str, channels: tuple[str, ...]) -> None:
        """The app makes a ticket, if its rules allow it."""
        number, position = self.next(), self._position()
        if all((user, name) in self.allowed for name in channels):
            ticket = Ticket(f"t{number}", user, channels, float("inf"), position)
            self.tickets.append((ticket, dict.fromkeys(channels, number)))

    def use_ticket(self, index: int, worker: int, *, missed: bool) -> None:
        """Opens a stream with a ticket. The app has no loader of users, and its rules always say yes."""
        if not self.tickets:
            return
        ticket, licences = self.tickets.pop(index % len(self.tickets))
        began, user = CLOCK.now - TICK, ticket.user_id or ""

        def open_stream() -> None:
            self._open(worker, user, licences, began, missed=missed, ticket=ticket)

        def finish() -> None:
            known = self.workers[worker].hub.disconnector.revoked_since
            if not ticket.is_revoked(self.broker, known):
                # The rules are asked again, but what counts is when they were asked about the ticket.
                self.asked.append(Asked(self.next(), open_stream))

        self.asked.append(Asked(licences[ticket.channels[0]], finish))

    def join(self, index: int, channel: str, *, by_app: bool) -> None:
        """A client asks to join a channel, or the app lets its stream join."""
        stream = self._pick(index)
        if stream is None:
            return
        position = None if by_app else self._position()

        def finish(number: int) -> None:
            stream.licences[channel] = max(number, stream.licences.get(channel, 0))
            arguments = {"connection": stream.connection, "join": [channel], "leave": [], "asked": position}
            self.broker.publish([command_publication(Command("channels", arguments))])

        if by_app:
            finish(self.next())
        else:
            self._ask(str(stream.user_id), [channel], finish)

    def leave_channel(self, index: int, channel: str) -> None:
        stream = self._pick(index)
        if stream is not None:
            arguments = {"connection": stream.connection, "join": [], "leave": [channel]}
            self.broker.publish([command_publication(Command("channels", arguments))])

    def recheck(self, index: int) -> None:
        """The rules are asked about an open stream. A late answer may take channels, but never give any."""
        stream = self._pick(index)
        if stream is None:
            return
        user = str(stream.user_id)
        forbidden = [name for name in stream.channels if (user, name) not in self.allowed]
        disconnector = stream.worker.hub.disconnector

        def finish() -> None:
            notice = forbidden_frames(forbidden)
            stream.worker.hub.call_soon(
                lambda: disconnector.remove_channels(stream, forbidden, "revoked", notice)
            )

        self.asked.append(Asked(self.next(), finish))

    def _pick(self, index: int) -> UserStream | None:
        streams = [stream for stream in self.streams if stream.open]
        return streams[index % len(streams)] if streams else None

    def populate(self) -> None:
        """Opens streams and lets them catch up, so that the next steps act on open streams."""
        for at, user in enumerate(USERS):
            self.connect(at % 2, user, CHANNELS[:1], missed=False)
        self.settle()

    def close(self, index: int) -> None:
        stream = self._pick(index)
        if stream is not None:
            stream.leave()

    def publish(self, channels: tuple[str, ...]) -> None:
        number = self.next()
        self.events[number] = frozenset(channels)
        self.broker.publish([Publication(make_event(f"E{number}E").encode(), channels)])

    def follow(self, index: int) -> None:
        """A new stream gets its next missed events."""
        waiting = [stream for stream in self.streams if stream.open and stream.recovers]
        if waiting:
            stream = waiting[index % len(waiting)]
            frames = stream.worker.hub.follow(stream, stream.recovery, 0)
            stream.recovers = frames is not None
            if frames:
                stream.write(frames)

    # -- workers and broker --------------------------------------------------------------------------------

    def run(self, worker: int) -> None:
        self.workers[worker].run()
        self.run_callbacks(worker)

    def run_callbacks(self, worker: int) -> None:
        self.workers[worker].hub._dispatcher._run_callbacks()

    def pass_time(self, seconds: float) -> None:
        CLOCK.now += seconds
        CLOCK.micros += round(seconds * 1e6)
        for worker in self.workers:
            worker.tick()

    def fail_over(self) -> None:
        """A replica takes over that has every write."""
        self._epoch += 1
        for worker in self.workers:
            worker.threads[0].lose()
        self.broker.promote(self.broker.copy(), f"e{self._epoch}")

    def settle(self) -> None:
        """Lets everything come to its end. Then checks which streams and channels are left."""
        while self.asked:
            self.answer(0)
        for worker in self.workers:
            worker.threads[0].gate.reachable = True
        for _ in range(80):
            for at, worker in enumerate(self.workers):
                if any(threads.gate.wire and threads.gate.wire.silent for threads in worker.threads):
                    CLOCK.now += 30
                if not worker.quiet:
                    worker.probe()
                self.run(at)
            waiting = [stream for stream in self.streams if stream.open and stream.recovers]
            for at in range(len(waiting)):
                self.follow(at)
            if not waiting and all(worker.quiet for worker in self.workers):
                break
        else:
            raise AssertionError("workers and streams never finish their work")
        for stream in self.streams:
            self._check_end(stream)

    # -- checks --------------------------------------------------------------------------------------------

    def _ended(self, user: str, channel: str, since: int, until: int) -> bool:
        return any(
            since < revoked.number < until and revoked.user == user and revoked.channel in (None, channel)
            for revoked in self.revoked
        )

    def check(self, stream: UserStream, number: int) -> None:
        """Checks that a stream may get an event."""
        user = str(stream.user_id)
        ways = [name for name in self.events[number] if name in stream.licences]
        late = [name for name in ways if self._ended(user, name, stream.licences[name], number)]
        assert ways, f"{user} got event {number} of other channels"
        assert len(late) < len(ways), f"{user} got event {number} after the right to {late} had ended"

    def _check_end(self, stream: UserStream) -> None:
        """Checks that an open stream has no ended right, and that nothing ended without a reason."""
        user, now = str(stream.user_id), self.next()
        if stream.open:
            for name in stream.channels:
                ended = self._ended(user, name, stream.licences[name], now)
                assert not ended, f"{user} still has {name}"
        for reason in stream.reasons:
            if reason in CHANNELS or reason == "revoked":
                assert user != LUCKY, f"the rights of {user} never ended, but {reason} did"
