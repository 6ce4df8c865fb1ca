"""Compressed streams: each chunk can be read at once, whatever was sent to which stream before."""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from flask_sse_push.history.channel_cache import ChannelCache
from flask_sse_push.hub import compression
from flask_sse_push.hub.compression import StreamCompression, WindowPool, compress_alone
from flask_sse_push.hub.group import Chunks, Group
from flask_sse_push.hub.stream import Stream
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.protocol.event import make_event
from flask_sse_push.protocol.frames import heartbeat_frame
from flask_sse_push.web.query import accepts_gzip

CLOSE = b"event: sse.close\ndata: {}\n\n"


class Client(Stream):
    """A stream whose client inflates each chunk as it comes. Notes what the client should have read."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None, ("a",))
        self.compression = StreamCompression()
        self.body = b""
        self.expected = b""
        self.slow: list[bytes] | None = None  # the chunks that a slow client has not read yet
        self._inflate = zlib.decompressobj(wbits=31)
        self._read = b""

    def write(self, chunk: bytes) -> None:
        if self.slow is not None:
            self.slow.append(chunk)
            return
        self.body += chunk
        self._read += self._inflate.decompress(chunk)

    def read_slow(self) -> None:
        waiting, self.slow = self.slow or [], None
        self.write(b"".join(waiting))

    def write_alone(self, frames: bytes) -> None:
        """Writes frames that no other stream gets."""
        self.expected += frames
        self.write(self.own_chunk(frames))

    def check(self) -> None:
        if self.slow is None:
            assert self._read == self.expected

    def end(self, frame: bytes) -> None:
        assert self.compression is not None
        self.read_slow()
        self.expected += frame
        self.compression.freeze()
        self.write(self.compression.last(frame))
        self.check()
        assert self._inflate.eof
        assert gzip.decompress(self.body) == self.expected

    def cut_if_stuck(self, now: float) -> bool:
        return False


class TwoGroups:
    """Streams in one group, and a second group that they may move to."""

    def __init__(self) -> None:
        window_pool = WindowPool()
        self.groups = [Group(("a", BROADCAST), Client, False, window_pool) for _ in range(2)]
        self.cache = ChannelCache(10)
        self.clients: list[Client] = []
        self.serial = 0

    def join(self, history: bytes) -> None:
        client = Client(f"c{len(self.clients)}")
        client.expected += b"retry: 1\n\n" + history
        client.write(client.encoded(b"retry: 1\n\n"))
        if history:
            client.write(client.encoded(history))
        self.groups[0].add(client)
        self.clients.append(client)

    def event(self, count: int, exclude: str = "") -> int:
        """Sends events to all streams; returns the number of bytes written."""
        written = 0
        for group in self.groups:
            entries = []
            for _ in range(count):
                self.serial += 1
                data = json.dumps({"n": self.serial, "price": self.serial * 7 % 100, "symbol": "ACME"})
                body = make_event(data, "tick").encode()
                entries.append(Entry("e0", self.serial, 0, body, frozenset(exclude.split())))
            for entry in entries:
                group.collect(entry, self.cache)
            for client in self.clients:
                if client.group is group:
                    shown = [
                        heartbeat_frame(Cursor("e0", e.id)) if exclude == client.connection else e.frame
                        for e in entries
                    ]
                    client.expected += b"".join(shown)
            for delivery in group.deliveries(0.0, Chunks()):
                written += len(delivery.chunk) * len(delivery.recipients.streams)
                delivery.write(0, len(delivery.recipients.streams))
        return written


clients = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.binary(max_size=300)),
        st.tuples(st.just("event"), st.integers(1, 4)),
        st.tuples(st.just("event"), st.integers(1, 4)),
        st.tuples(st.just("only"), clients),
        st.tuples(st.just("own"), clients),
        st.tuples(st.just("slow"), clients),
        st.tuples(st.just("read slow"), clients),
        st.tuples(st.just("move"), clients),
        st.tuples(st.just("leave"), clients),
        st.tuples(st.just("end"), clients),
    ),
    max_size=60,
)


def play(scene: TwoGroups, name: str, argument: object) -> None:
    if name == "join":
        assert isinstance(argument, bytes)
        scene.join(argument)
        return
    assert isinstance(argument, int)
    if name == "event":
        scene.event(argument)
        return
    if not scene.clients:
        return
    client = scene.clients[argument % len(scene.clients)]
    group = client.group
    assert group is not None
    if name == "only":
        scene.event(1, exclude=client.connection)
    elif name == "own":
        client.write_alone(heartbeat_frame(Cursor("e0", scene.serial)))
    elif name == "slow":
        client.slow = client.slow or []
    elif name == "read slow":
        client.read_slow()
    else:
        group.remove(client)
        if name == "move":
            scene.groups[1 - scene.groups.index(group)].add(client)
            return
        scene.clients.remove(client)
        if name == "end":
            client.end(CLOSE)


@settings(deadline=None, max_examples=400)
@given(steps, st.sampled_from([1, 100]))
def test_any_order_of_steps_decodes_to_the_same_text(
    steps: list[tuple[str, object]], window_pool: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "MAX_WINDOWS", window_pool)
        scene = TwoGroups()
        for name, argument in steps:
            play(scene, name, argument)
            for client in scene.clients:
                client.check()
        for client in scene.clients:
            client.end(CLOSE)  # without leaving its group first, as at a drain


def test_streams_in_sync_share_one_chunk_that_refers_to_earlier_ones() -> None:
    scene = TwoGroups()
    for _ in range(50):
        scene.join(b"")
    alone = scene.event(1) / 50
    shared = [scene.event(1) / 50 for _ in range(20)]
    assert max(shared) < alone / 2
    assert len(scene.groups[0].deliveries(0.0, Chunks(), b": notice\n\n")) == 1


def test_the_streams_of_a_group_are_not_copied_for_an_event_and_a_new_stream_gets_the_next_event() -> None:
    scene = TwoGroups()
    for _ in range(3):
        scene.join(b"")
    group = scene.groups[0]
    scene.serial += 1
    entry = Entry("e0", scene.serial, 0, b"data: x\n\n")
    group.collect(entry, scene.cache)
    (delivery,) = group.deliveries(0.0, Chunks())
    assert delivery.recipients is group.recipients
    scene.join(b"")
    assert delivery.recipients.streams == scene.clients[:3]
    delivery.write(0, 3)
    for client in scene.clients[:3]:
        client.expected += entry.frame
    scene.event(1)
    for client in scene.clients:
        client.check()


def test_the_lists_of_streams_in_sync_and_out_of_sync_are_made_once() -> None:
    scene = TwoGroups()
    for _ in range(10):
        scene.join(b"")
    scene.event(1)
    scene.join(b"")
    window = scene.groups[0].window
    assert window is not None
    found = [window.parts]
    for _ in range(2):
        scene.event(1)
        found.append(window.parts)
    scene.clients[3].write_alone(heartbeat_frame(Cursor("e0", scene.serial)))
    found.append(window.parts)
    scene.event(1)
    found.append(window.parts)
    assert found[1] is not None
    assert found[1] is found[2]
    in_sync, out_of_sync = found[1]
    assert (in_sync.streams, out_of_sync.streams) == (scene.clients[:10], scene.clients[10:])
    assert (found[0], found[3]) == (None, None)
    assert found[4] is not None
    assert found[4][1].streams == [scene.clients[3], scene.clients[10]]
    for client in scene.clients:
        client.check()


def test_a_new_stream_costs_the_others_nothing_until_a_restart_pays() -> None:
    scene = TwoGroups()
    for _ in range(10):
        scene.join(b"")
    scene.event(1)
    scene.event(1)
    scene.join(b"")
    kinds = []
    for _ in range(14):
        scene.serial += 1
        scene.groups[0].collect(Entry("e0", scene.serial, 0, b"data: x\n\n"), scene.cache)
        kinds.append(
            [len(delivery.recipients.streams) for delivery in scene.groups[0].deliveries(0.0, Chunks())]
        )
    assert kinds == [[10, 1]] * 10 + [[11]] * 4


def test_a_single_stream_uses_the_shared_window_too() -> None:
    scene = TwoGroups()
    scene.join(b"")
    sizes = [scene.event(1) for _ in range(5)]
    assert max(sizes[1:]) < sizes[0] / 2
    scene.clients[0].write_alone(heartbeat_frame(Cursor("e0", 1)))
    assert scene.event(1) > sizes[1]


def test_windows_go_to_the_biggest_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_WINDOWS", 1)
    window_pool = WindowPool()
    small, big = (Group(("a",), Client, False, window_pool) for _ in range(2))
    for group, count in ((small, 1), (big, 3)):
        for n in range(count):
            group.add(Client(f"{n}"))
        for id in (1, 2):
            group.collect(Entry("e0", id, 0, b"data: " + b"x" * 500 + b"\n\n"), ChannelCache(1))
            last = group.flush(0.0, Chunks())[0]
        assert len(last.chunk) < 20  # it refers to the one before
    entry = Entry("e0", 3, 0, b"data: " + b"x" * 500 + b"\n\n")
    small.collect(entry, ChannelCache(1))
    (delivery,) = small.flush(0.0, Chunks())
    assert delivery.chunk == compress_alone(entry.frame)  # its window was taken
    assert big.window is not None
    big.window.close()
    big.window.close()


def test_a_stream_that_did_not_get_all_chunks_ends_without_a_checksum() -> None:
    compression = StreamCompression()
    compression.encode_alone(b"lost")
    compression.complete = False
    last = compression.last(CLOSE)
    inflate = zlib.decompressobj(wbits=-15)
    assert inflate.decompress(last) == CLOSE
    assert not inflate.eof
    assert StreamCompression().last(b"") == b""


def test_an_event_of_436_bytes_in_a_group_costs_at_most_90() -> None:
    chance = random.Random(7)
    scene = TwoGroups()
    for _ in range(100):
        scene.join(b"")
    sizes, seconds = [], []
    group = scene.groups[0]
    for n in range(1, 401):
        quote = {
            "symbol": chance.choice(["AAPL", "GOOG", "MSFT", "TSLA", "NVDA"]),
            "bid": round(chance.uniform(90, 110), 2),
            "ask": round(chance.uniform(90, 110), 2),
            "volume": chance.randrange(100_000),
            "venue": chance.choice(["XNAS", "XNYS", "BATS"]),
            "time": f"2026-11-21T12:{n // 60:02}:{n % 60:02}.{chance.randrange(1000):03}Z",
        }
        text = json.dumps({**quote, "note": ""})
        text = json.dumps(
            {**quote, "note": ("delayed by fifteen minutes as agreed; " * 12)[: 400 - len(text)]}
        )
        entry = Entry("1f0c2a77", 10**15 + n * 50_000, 0, make_event(text, "quote").encode())
        assert 430 <= len(entry.frame) <= 450
        group.collect(entry, scene.cache)
        began = time.process_time()
        deliveries = group.deliveries(0.0, Chunks())
        seconds.append(time.process_time() - began)
        assert [len(each.recipients.streams) for each in deliveries] == [100]
        sizes.append(len(deliveries[0].chunk))
    average = sum(sizes) / len(sizes)
    micros = sorted(seconds)[len(seconds) // 2] * 1e6
    print(f"{average:.0f} bytes on the wire (first {sizes[0]}), {micros:.1f} µs of CPU per event and group")
    assert average <= 90


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip, deflate, br, zstd", True),
        ("GZIP", True),
        ("*", True),
        ("gzip;q=0.5, identity;q=0.1", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0", False),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
def test_a_client_says_whether_it_takes_gzip(header: str, wanted: bool) -> None:
    assert accepts_gzip(parse_accept_header(header, Accept)) is wanted
