"""Two workers on one memory broker, their clients, and a method for everything that can happen to them.

Each client has an account of what it must get. The account reads every frame, and raises at the first fault.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub.compression import StreamCompression
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.command import Command, command_publication
from flask_sse_push.protocol.cursor import EARLIEST, Cursor
from flask_sse_push.protocol.entry import Publication
from flask_sse_push.protocol.event import make_event
from tests.support.policies import keeping

from .account.published import NOWHERE, BrokerAccount, Event, Place
from .account.records import Ended, records_of
from .account.shards import ShardedStreamAccount
from .account.stream import BOGUS, FUTURE, StreamAccount
from .account.verdict import Verdict
from .stepping import CLOCK, KEPT, SETTINGS, TTL, Primary, ShardThreads, Worker

NAMES = ("a", "b", "c", "d")
#: Seconds for which a client lets events wait for a batch. 0: no batches. None: the client sends no value.
WAITS = (None, None, 0.0, 0.2, 2.5)
#: Bytes of missed events that a recovery sends in one chunk: few, so that a recovery takes several chunks.
CHUNK = 70
#: The kinds of cursor that a client may send. Most clients send their own.
KINDS = ("own", "own", "own", "latest", "live", "earliest", "newest", "bogus", "future")
#: The account of a client's stream over one shard, or over several.
ClientAccount = StreamAccount | ShardedStreamAccount


class Arrival(NamedTuple):
    """A client opens a stream at a worker. `client` and `worker` are their numbers."""

    client: int
    worker: int
    channels: tuple[str, ...]
    kind: str  # of KINDS
    wait: float | None = None  # of WAITS
    gzip: bool = False


class CheckedStream(Stream):
    """A stream that passes every frame to its account."""

    def __init__(self, connection: str, user: str, channels: tuple[str, ...], account: ClientAccount) -> None:
        super().__init__(connection, user, channels)
        self.account = account
        self.cursors: list[str | None] = [account.cursor]
        self.resets = 0
        self.left = self.joined = False
        self.commands: list[Place] = []  # places of the commands that close this stream
        self.on_end: Callable[[], None] = lambda: None
        self._inflate = zlib.decompressobj(wbits=31)

    def write(self, chunk: bytes) -> None:
        if self.left:
            return
        if self.compression is not None:  # a client can read all events of a chunk at once
            chunk = self._inflate.decompress(chunk)
            assert chunk.endswith(b"\n\n")
        for frame in chunk.split(b"\n\n")[:-1]:
            self.resets += b"event: sse.reset" in frame
            records = records_of(frame)
            assert records, frame
            for record in records:
                assert not isinstance(record, Ended), "`end` sends the last frame"
                self.account.read(record)
                self.cursors.append(self.account.cursor)

    def end(self, frame: bytes) -> None:
        assert b"event: sse.close" in frame
        if not self.left:
            if self.compression is not None:
                self.compression.freeze()
                assert self._inflate.decompress(self.compression.last(frame)) == frame
                assert self._inflate.eof  # the checksum is right
            self.account.ended(self.commands, joined=self.joined)
            self.on_end()

    def join(self) -> None:
        self.joined = True

    def cut_if_stuck(self, now: float) -> bool:
        return False


class Visitor:
    """A browser. It has one connection at a time, and keeps its cursor for the next connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cursor: str | None = None
        self.worker: Worker | None = None
        self.joined = False
        self.connection = name  # each connection gets a name of its own
        self._count = 0

    def connect(self, stage: Stage, arrival: Arrival, start: StartPoint) -> None:
        """Opens a stream."""
        self._count += 1
        self.connection = f"{self.name}.{self._count}"
        user, channels = "u" + self.name, arrival.channels
        self.worker, self.joined = stage.workers[arrival.worker], False
        account = stage.account_of(self.worker, {self.connection, user})
        account.connect((*channels, BROADCAST), start)
        self.stream = CheckedStream(self.connection, user, channels, account)
        self.stream.batch_wait = arrival.wait
        self.stream.compression = StreamCompression() if arrival.gzip else None
        self.stream.on_end = self.leave
        self.recovery = self.worker.hub.recovery((*channels, BROADCAST), start)
        self.worker.hub.open(self.stream)

    def follow(self) -> bool:
        """Takes one chunk of the missed events; returns whether there was a chunk."""
        if self.worker is None or self.joined:
            return False
        frames = self.worker.hub.follow(self.stream, self.recovery, 0)
        self.joined = frames is None
        if frames:
            self.stream.write(self.stream.encoded(frames))
        return bool(frames)

    def leave(self, unread: int = 0) -> None:
        """Closes the stream. The client has not read the last `unread` frames."""
        if self.worker is not None:
            self.stream.left = True
            self.worker.hub.leave(self.stream)
            self.cursor = self.stream.cursors[max(0, len(self.stream.cursors) - 1 - unread)]
            self.worker = None


class RecordedPrimary(Primary):
    """The broker of one shard. It notes each event in its account. A replica may take over from it."""

    def __init__(self, epoch: str) -> None:
        super().__init__(keeping(KEPT, TTL))
        self._epoch = epoch
        self.account = BrokerAccount(self)
        self.cache = self.copy()

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        cursors = super().publish(publications, once)
        for publication, cursor in zip(publications, cursors, strict=True):
            if not publication.channels[0].startswith("!"):  # no command
                self.account.note(cursor, event_of(publication))
        return cursors


def event_of(publication: Publication) -> Event:
    """The event as a shard's account records it."""
    return Event(
        int(publication.body.split(b"data: ")[1].split(b"\n")[0]),
        frozenset(publication.lists),
        exclude=frozenset(publication.exclude),
        fleeting=publication.ttl is not None,
        shared=len(publication.channels) > 1,
    )


class Stage(ABC):
    """Two workers, four clients, one shard or several. One method for each thing that can happen to them."""

    #: The streams that `populate` opens: for each client, the number of its worker and its channels.
    crowd: ClassVar[Sequence[tuple[int, tuple[str, ...]]]]
    #: Pattern for the names of epochs.
    epoch: ClassVar[str]

    def __init__(self, shards: int) -> None:
        CLOCK.reset()
        self.brokers = [RecordedPrimary(self.epoch.format(shard=k, number=0)) for k in range(shards)]
        self.workers = [Worker(self.brokers) for _ in range(2)]
        self.clients = [Visitor(f"k{n}") for n in range(4)]
        self._home = self.brokers[0]  # the shard that stores commands
        self._serial = 0

    @abstractmethod
    def latest(self) -> str:
        """The cursor of the newest event. A worker may not have got that event yet."""

    @abstractmethod
    def account_of(self, worker: Worker, identities: set[str]) -> ClientAccount:
        """Makes the account of a stream with these identities."""

    def all_threads(self) -> Iterator[ShardThreads]:
        for worker in self.workers:
            yield from worker.threads

    def populate(self) -> None:
        """Opens streams and lets them catch up, so that the next steps act on open streams."""
        for client, (worker, channels) in enumerate(self.crowd):
            self.open(Arrival(client, worker, channels, "live"))
        self.settle()

    def publications(
        self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]
    ) -> list[Publication]:
        """Makes events, each with the next serial number. `exclude` may name clients."""
        publications = []
        for channels, exclude, ttl in events:
            self._serial += 1
            body = make_event(str(self._serial)).encode()
            connections = {client.name: client.connection for client in self.clients}
            excluded = tuple(connections.get(name, name) for name in exclude)
            publications.append(Publication(body, tuple(channels), excluded, ttl))
        return publications

    def disconnect(self, client: int) -> None:
        """Sends the command that closes a client's stream."""
        visitor = self.clients[client]
        command = Command("disconnect", {"connection": visitor.connection, "reconnect": True})
        cursor = self._home.publish([command_publication(command)])[0]
        if visitor.worker:
            visitor.stream.commands.append(self._home.account.place(str(cursor)))

    def change(self, client: int, join: Sequence[str], leave: Sequence[str], kind: str) -> None:
        """Sends the command that changes the channels of a client's stream."""
        visitor = self.clients[client]
        if visitor.worker is None:
            return
        start = self._start(visitor, kind, join)
        arguments: dict[str, Any] = {"connection": visitor.connection, "join": join, "leave": leave}
        arguments |= {"since": start.cursor, "last": start.newest}
        self._home.publish([command_publication(Command("channels", arguments))])
        visitor.stream.account.request_change(join, leave, start)

    def open(self, arrival: Arrival) -> None:
        """A client opens a stream. If it has a stream, it closes that first."""
        visitor = self.clients[arrival.client]
        visitor.leave()
        start = self._start(visitor, arrival.kind, arrival.channels)
        asks = arrival.client == len(self.clients) - 1  # as a short stream that ends at once does
        visitor.connect(self, arrival, start._replace(asks_broker=asks))

    def _start(self, visitor: Visitor, kind: str, channels: Sequence[str]) -> StartPoint:
        cursor = visitor.stream.account.cursor if visitor.worker else visitor.cursor
        return {
            "own": StartPoint(cursor),
            "latest": StartPoint(self.latest()),
            "live": StartPoint(),
            "earliest": StartPoint(EARLIEST),
            "newest": StartPoint(newest=len(channels)),
            "bogus": StartPoint(BOGUS[1]),
            "future": StartPoint(self._home._epoch + FUTURE),
        }[kind]

    def forget_all(self, clock_back: bool, shard: int = 0) -> None:
        """A shard loses all its data. With `clock_back`, its clock goes back too."""
        broker = self.brokers[shard]
        epoch = self.epoch.format(shard=shard, number=len(broker.account.epochs))
        broker.forget(epoch)
        broker.account.new_epoch(epoch)
        broker.account.tampered.clear()
        self.copy(shard)
        if clock_back:
            CLOCK.micros -= 500

    def copy(self, shard: int = 0) -> None:
        """The replica copies all data of the primary."""
        self.brokers[shard].cache = self.brokers[shard].copy()

    def fail_over(self, shard: int = 0) -> None:
        """The replica becomes the primary, so everything since the last copy is lost. All links break."""
        broker = self.brokers[shard]
        copy = broker.cache
        epoch = self.epoch.format(shard=shard, number=len(broker.account.epochs))
        broker.account.fork(epoch, copy.epoch, copy.last)
        for worker in self.workers:
            worker.threads[shard].lose()
        broker.promote(copy, epoch)
        self.copy(shard)

    def tamper(self, name: str, how: str, shard: int = 0) -> None:
        """Deletes entries from a list without the broker's knowledge."""
        if self.brokers[shard].tamper(name, how):
            self.brokers[shard].account.tampered.add(name)

    def follow(self, client: int, chunks: int) -> None:
        for _ in range(chunks):
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
        """Lets workers and clients finish all work. Then checks that no client misses an event."""
        for threads in self.all_threads():
            threads.gate.reachable = True
        for _ in range(60):
            for worker in self.workers:
                if any(threads.gate.wire and threads.gate.wire.silent for threads in worker.threads):
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
            raise AssertionError("workers and clients never finish their work")
        for worker in self.workers:
            worker.probe()
            worker.run()
        CLOCK.now += 1.5 * SETTINGS.heartbeat
        for worker in self.workers:
            worker.tick()
        for client in self.clients:
            if client.worker:
                assert client.stream.account.has_all(), f"lost: {client.name} waits for an event or a reset"


class World(Stage):
    """The simulation with one shard."""

    crowd = ((0, ("a", "b")), (0, ("b", "c", "d")), (1, ("a", "b", "c")))
    epoch = "e{number}"

    def __init__(self) -> None:
        super().__init__(shards=1)

    def threads(self, worker: int) -> ShardThreads:
        """The threads of a worker, by its number."""
        return self.workers[worker].threads[0]

    def account_of(self, worker: Worker, identities: set[str]) -> ClientAccount:
        account, verdict = self._home.account, Verdict(strict=True)
        return StreamAccount(account, verdict, identities=identities, is_behind=lambda: worker.is_behind(0))

    def publish(self, events: Iterable[tuple[Iterable[str], Iterable[str], float | None]]) -> None:
        self._home.publish(self.publications(events))

    def latest(self) -> str:
        """The cursor that the last publish returned."""
        account = self._home.account
        number, id = account.events[-1].place if account.events else NOWHERE
        return str(Cursor(self._home._epoch, id if number == len(account.epochs) - 1 else 0))
