"""A world of two workers on one memory broker, and what can happen to it; a judge reads every frame."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from flask_sse_push.brokers.base import Bounds
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub.compression import StreamCompression
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.command import Command, command_publication
from flask_sse_push.protocol.cursor import EARLIEST, Cursor
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.protocol.event import Event

from .judge import BOGUS, FUTURE, Judge, Truth
from .stepping import CLOCK, KEPT, SETTINGS, TTL, Ear, Primary, Worker

NAMES = ("a", "b", "c", "d")
#: What a client may say of batches: nothing, that it wants none, and how long events may wait.
WAITS = (None, None, 0.0, 0.2, 2.5)
#: Bytes of a piece of what was missed: a small bound, too.
PIECE = 70
#: What a client may come with; most have their own cursor.
KINDS = ("own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")


class Arrival(NamedTuple):
    """A client, by number, that comes to a worker, by number, with one kind of cursor."""

    client: int
    worker: int
    channels: tuple[str, ...]
    kind: str  # of KINDS
    wait: float | None = None  # what it says of batches
    gzip: bool = False


class JudgedSink(Stream):
    """Hands every frame to the judge."""

    def __init__(self, connection: str, user: str, channels: tuple[str, ...], judge: Judge) -> None:
        super().__init__(connection, user, channels)
        self.judge = judge
        self.cursors: list[str | None] = [judge.cursor]
        self.resets = 0
        self.left = self.joined = False
        self.commands: list[tuple[int, int]] = []  # places of those to end this stream
        self.when_ended: Callable[[], None] = lambda: None
        self._inflate = zlib.decompressobj(wbits=31)

    def write(self, chunk: bytes) -> None:
        if self.left:
            return
        if self.compression is not None:  # each chunk must give its events at once
            chunk = self._inflate.decompress(chunk)
            assert chunk.endswith(b"\n\n")
        for frame in chunk.split(b"\n\n")[:-1]:
            self.resets += b"event: sse.reset" in frame
            for read in self.judge.unpacked(frame):
                self.judge.read(read)
                self.cursors.append(self.judge.cursor)

    def end(self, frame: bytes) -> None:
        assert b"event: sse.close" in frame
        if not self.left:
            if self.compression is not None:
                self.compression.freeze()
                assert self._inflate.decompress(self.compression.last(frame)) == frame
                assert self._inflate.eof  # the checksum was right
            self.judge.ended(self.commands, joined=self.joined)
            self.when_ended()

    def join(self) -> None:
        self.joined = True

    def is_stuck(self, now: float) -> bool:
        return False

    def cut(self) -> None:
        raise NotImplementedError


class Visitor:
    """A browser: one connection at a time, and the cursor it was left with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cursor: str | None = None
        self.worker: Worker | None = None
        self.joined = False
        self.connection = name  # another one each time
        self._count = 0

    def connect(
        self,
        worker: Worker,
        judge: Callable[[set[str]], Judge],
        channels: tuple[str, ...],
        start: StartPoint,
        wait: float | None,
        gzip: bool,
    ) -> None:
        """Opens a stream.

        :param judge: makes the one for a stream that goes by these names.
        """
        self._count += 1
        self.connection = f"{self.name}.{self._count}"
        user = "u" + self.name
        self.stream = JudgedSink(self.connection, user, channels, judge({self.connection, user}))
        self.worker, self.joined = worker, False
        self.stream.wait = wait
        self.stream.compression = StreamCompression() if gzip else None
        self.stream.when_ended = self.leave
        self.recovery = worker.hub.recovery((*channels, BROADCAST), start)
        worker.hub.open(self.stream)

    def follow(self) -> bool:
        """Takes one piece of what was missed; returns whether there was one."""
        if self.worker is None or self.joined:
            return False
        frames = self.worker.hub.follow(self.stream, self.recovery, 0)
        self.joined = frames is None
        if frames:
            self.stream.write(self.stream.encoded(frames))
        return bool(frames)

    def leave(self, unread: int = 0) -> None:
        """Goes, without having read the last `unread` frames."""
        if self.worker is not None:
            self.stream.left = True
            self.worker.hub.leave(self.stream)
            self.cursor = self.stream.cursors[max(0, len(self.stream.cursors) - 1 - unread)]
            self.worker = None


class Stage(ABC):
    """Workers and clients, and what can happen to them, over one shard or several."""

    #: Streams that follow already: the number of the worker and the channels, of the first clients.
    crowd: ClassVar[Sequence[tuple[int, tuple[str, ...]]]]

    def __init__(self, brokers: Sequence[Primary]) -> None:
        self.workers = [Worker(brokers) for _ in range(2)]
        self.clients = [Visitor(f"k{n}") for n in range(4)]
        self._home = brokers[0]
        self._serial = 0

    @property
    @abstractmethod
    def truth(self) -> Truth:
        """What was published to the first shard."""

    @abstractmethod
    def latest(self) -> str:
        """A cursor that workers may not have reached."""

    @abstractmethod
    def judge(self, worker: Worker, who: set[str], channels: tuple[str, ...], start: StartPoint) -> Judge:
        """One for a stream that goes by these names."""

    def ears(self) -> Iterator[Ear]:
        for worker in self.workers:
            yield from worker.ears

    def populate(self) -> None:
        """Streams that follow already, so that trouble meets something."""
        for client, (worker, channels) in enumerate(self.crowd):
            self.open(Arrival(client, worker, channels, "live"))
        self.settle()

    def publications(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]
    ) -> list[Publication]:
        """Events that are numbered through."""
        publications = []
        for channels, exclude, ttl in events:
            self._serial += 1
            body = Event(str(self._serial)).encode()
            connections = {client.name: client.connection for client in self.clients}
            excluded = tuple(connections.get(name, name) for name in exclude)
            publications.append(Publication(body, tuple(channels), excluded, ttl))
        return publications

    def disconnect(self, client: int) -> None:
        """Somebody has the stream of a client ended."""
        who = self.clients[client]
        command = Command("disconnect", {"connection": who.connection, "reconnect": True})
        cursor = self._home.publish([command_publication(command)])[0]
        if who.worker:
            who.stream.commands.append(self.truth.place(str(cursor)))

    def change(self, client: int, join: Sequence[str], leave: Sequence[str], kind: str) -> None:
        """Somebody has the stream of a client join and leave channels."""
        who = self.clients[client]
        if who.worker is None:
            return
        start = self._start(who, kind, join)
        arguments: dict[str, Any] = {"connection": who.connection, "join": join, "leave": leave}
        arguments |= {"since": start.cursor, "last": start.newest}
        self._home.publish([command_publication(Command("channels", arguments))])
        who.stream.judge.wishes(join, leave, start)

    def open(self, arrival: Arrival) -> None:
        """A client comes, or comes again."""
        who = self.clients[arrival.client]
        who.leave()
        worker, channels = self.workers[arrival.worker], arrival.channels
        start = self._start(who, arrival.kind, channels)

        def judge(names: set[str]) -> Judge:
            return self.judge(worker, names, channels, start)

        who.connect(worker, judge, channels, start, arrival.wait, arrival.gzip)

    def _start(self, who: Visitor, kind: str, channels: Sequence[str]) -> StartPoint:
        cursor = who.stream.judge.cursor if who.worker else who.cursor
        return {
            "own": StartPoint(cursor),
            "latest": StartPoint(self.latest()),
            "live": StartPoint(),
            "earliest": StartPoint(EARLIEST),
            "newest": StartPoint(newest=len(channels)),
            "bogus": StartPoint(BOGUS[1]),
            "future": StartPoint(self._home._epoch + FUTURE),
        }[kind]

    def follow(self, client: int, pieces: int) -> None:
        for _ in range(pieces):
            if not self.clients[client].follow():
                break

    def run_all(self) -> None:
        for worker in self.workers:
            worker.run()
        for client in self.clients:
            client.follow()

    def tick(self, worker: int, seconds: float) -> None:
        CLOCK.now += seconds
        self.workers[worker].tick()

    def settle(self) -> None:
        """Lets everything come to rest; then every client must have all that it is entitled to."""
        for ear in self.ears():
            ear.gate.reachable = True
        for _ in range(60):
            for worker in self.workers:
                if any(ear.gate.wire and ear.gate.wire.deaf for ear in worker.ears):
                    CLOCK.now += 3 * SETTINGS.probe
                if not worker.quiet:
                    CLOCK.now += max(wait for wait in WAITS if wait)
                    worker.probe()
                worker.run()
            moved = [client.follow() for client in self.clients]
            waiting = any(client.worker and not client.joined for client in self.clients)
            if not any(moved) and not waiting and all(worker.quiet for worker in self.workers):
                break
        else:
            raise AssertionError("it never comes to rest")
        for worker in self.workers:
            worker.probe()
            worker.run()
        CLOCK.now += 1.5 * SETTINGS.heartbeat
        for worker in self.workers:
            worker.tick()
        for client in self.clients:
            if client.worker:
                assert client.stream.judge.has_all(), f"{client.name} waits for an event in vain"


class World(Stage):
    """All on one shard."""

    crowd = ((0, ("a", "b")), (0, ("b", "c", "d")), (1, ("a", "b", "c")))

    def __init__(self) -> None:
        CLOCK.reset()
        self.broker = Primary(Bounds(KEPT, TTL))
        self.broker._epoch = "e0"
        self._truth = Truth(self.broker)
        super().__init__([self.broker])
        self.copy()

    @property
    def truth(self) -> Truth:
        return self._truth

    def ear(self, worker: int) -> Ear:
        """Of a worker by number."""
        return self.workers[worker].ears[0]

    def judge(self, worker: Worker, who: set[str], channels: tuple[str, ...], start: StartPoint) -> Judge:
        return Judge(self.truth, who, channels, start, lambda: worker.is_behind(0))

    def publish(self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]) -> None:
        publications = self.publications(events)
        first = self._serial - len(publications) + 1
        for at, cursor in enumerate(self.broker.publish(publications)):
            self.truth.note(cursor, str(first + at), publications[at])

    def latest(self) -> str:
        """What the last publish returned: a cursor that workers may not have reached."""
        if not self.truth.facts or self.truth.facts[-1].place[0] != len(self.truth._epochs) - 1:
            return str(Cursor(self.broker._epoch, 0))
        return str(Cursor(self.broker._epoch, self.truth.facts[-1].place[1]))

    def forget_all(self, clock_back: bool) -> None:
        epoch = f"e{len(self.truth._epochs)}"
        self.broker.forget(epoch)
        self.truth.new_epoch(epoch)
        self.truth.tampered.clear()
        self.copy()
        if clock_back:
            CLOCK.micros -= 500

    def copy(self) -> None:
        """The replica takes over all that the primary has."""
        self._copy = self.broker.copy()

    def fail_over(self) -> None:
        """The replica is promoted: what the primary did since the last copy never was. All links break."""
        copy = self._copy
        epoch = f"e{len(self.truth._epochs)}"
        self.truth.fork(epoch, copy.epoch, copy.last)
        for ear in self.ears():
            ear.lose()
        self.broker.promote(copy, epoch)
        self.copy()

    def tamper(self, name: str, how: str) -> None:
        """Takes entries out of a list behind the broker's back."""
        if self.broker.tamper(name, how):
            self.truth.tampered.add(name)
