"""Streams in another format: one encoding for each event and group, heartbeats as comments, and all ends."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence

import pytest

from flask_sse_push.brokers.announcer import MessageAnnouncer
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.position import StartPoint
from flask_sse_push.hub.compression import StreamCompression
from flask_sse_push.hub.encoder import HEARTBEAT, Encoder
from flask_sse_push.hub.hub import Hub
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.transports.generator import GeneratorStream
from tests.support.deadline import eventually
from tests.support.policies import keeping


class Upper(Encoder):
    """Writes the data of each event in capitals, numbered from the first event. Ends after the data `end`."""

    encoded: list[int] = []  # ids of the entries that any of these encoders has encoded

    def __init__(self) -> None:
        self.number = 0

    @property
    def key(self) -> Hashable:
        return "upper"

    def opening(self) -> bytes:
        return b"OPEN\n"

    def encode(self, entries: Iterable[Entry]) -> bytes:
        return b"".join([self._line(entry) for entry in entries if not self.ended])

    def _line(self, entry: Entry) -> bytes:
        self.encoded.append(entry.id)
        self.number += 1
        data = entry.frame.split(b"data: ")[1].strip()
        self.ended = data == b"end"
        return b"" if data.startswith(b"skip") else b"%d %b\n" % (self.number, data.upper())

    def caught_up(self) -> bytes:
        return b""

    def lose(self, channels: Sequence[str]) -> bytes:
        self.ended = True
        return b"LOST\n"

    def closing(self, reason: str, *, reconnect: bool) -> bytes:
        return b"CLOSED %b after %d\n" % (reason.encode(), self.number)


class Site:
    """A hub over a memory broker, and streams of one channel."""

    def __init__(self) -> None:
        broker = MemoryBroker(keeping(1000, 60.0))
        self.settings = Settings(heartbeat=1.0)
        self.announcer = MessageAnnouncer(broker, self.settings)
        self.hub = Hub(broker, self.settings)

    def publish(self, *data: str) -> None:
        for each in data:
            self.announcer.publish(each, channel="a")

    def stream(self, *, compressed: bool = False) -> tuple[GeneratorStream, bytes]:
        """Returns an open stream that has encoded all kept events, and the bytes that it got so far."""
        name = f"s{len(self.hub.streams())}"
        stream = GeneratorStream(name, None, ("a",), self.settings)
        stream.encoder = Upper()
        stream.compression = StreamCompression() if compressed else None
        self.hub.open(stream)
        recovery, body = self.hub.recovery(("a", "*"), StartPoint("earliest")), b""
        while (frames := self.hub.follow(stream, recovery, 10)) is not None:
            body += stream.encoded(frames)
            if stream.ended:
                break
        return stream, body


@pytest.fixture
def site() -> Iterator[Site]:
    Upper.encoded.clear()
    made = Site()
    yield made
    made.hub.close()
    made.announcer.close()


def rest(stream: Stream) -> bytes:
    """Returns the bytes of a stream from now to its end."""
    assert isinstance(stream, GeneratorStream)
    return b"".join(iter(stream.take, b""))


@pytest.mark.parametrize("compressed", [False, True])
def test_each_event_is_encoded_once_for_all_streams_of_a_group(site: Site, compressed: bool) -> None:
    site.publish("a")
    streams = [site.stream(compressed=compressed) for _ in range(50)]
    assert len(Upper.encoded) == 50  # each stream has encoded the event that it had missed
    site.publish("b", "skip", "c", "end", "later")
    for stream, begin in streams:
        body = begin + rest(stream)
        if compressed:
            body = zlib.decompressobj(wbits=31).decompress(body)
        assert body == b"OPEN\n1 A\n2 B\n4 C\n5 END\n"
        assert stream.reason == "done"
    assert len(Upper.encoded) == 50 + 4


def test_a_stream_whose_format_ends_while_it_catches_up_joins_no_group(site: Site) -> None:
    site.publish("a", "end", "later")
    stream, body = site.stream()
    assert body == b"OPEN\n1 A\n2 END\n"
    assert stream.group is None
    assert rest(stream) == b""


def test_a_stream_skips_many_missed_events_before_it_joins(site: Site) -> None:
    site.publish("a", *["skip" + "." * 5000] * 30, "b")
    stream, body = site.stream()
    assert body == b"OPEN\n1 A\n32 B\n"
    site.publish("c")
    assert stream.take() == b"33 C\n"


def test_heartbeats_are_comments(site: Site) -> None:
    stream, body = site.stream()
    assert body == b"OPEN\n"
    assert stream.take() == HEARTBEAT == b": heartbeat\n"
    site.publish("a")
    assert stream.take() == b"1 A\n"


def test_a_close_is_told_in_the_format(site: Site) -> None:
    first, _ = site.stream()
    second, _ = site.stream()
    site.publish("a")
    site.announcer.command("disconnect", connection=first.connection, reconnect=True)
    assert rest(first) == b"1 A\nCLOSED disconnected after 1\n"
    eventually(lambda: second.group is not None and len(second.group.streams) == 1)
    site.hub.close()
    assert rest(second) == b"1 A\nCLOSED closed after 1\n"


@pytest.mark.parametrize(
    ("shows_cut", "reconnect", "last"),
    [
        (False, True, b"CLOSED slow after 0\n"),
        (False, False, b"CLOSED slow after 0\n"),
        (True, False, b"CLOSED slow after 0\n"),
        (True, True, b""),
    ],
)
def test_a_client_that_may_come_back_sees_its_connection_break(
    shows_cut: bool, reconnect: bool, last: bytes
) -> None:
    """An end without an error would look like the end of the events."""

    class CutStream(GeneratorStream):
        cuts = 0

        def cut(self) -> None:
            self.cuts += 1
            super().cut()

    CutStream.shows_cut = shows_cut
    stream = CutStream("c", None, ("a",), Settings())
    stream.encoder = Upper()
    stream.end_with_reason("slow", reconnect=reconnect, retry=1.0, notice=b"event: sse.error\n")
    assert rest(stream) == last
    assert stream.cuts == (not last)
