"""Compressed streams from real servers: with both transports, directly and through nginx."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import stretched
from tests.support.nginx import nginx_before
from tests.support.stream import Stream

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("transport")


class Inflating(Stream):
    """A client that accepts gzip and reads each chunk as it comes."""

    def __init__(self, url: str, **options: Any) -> None:
        self.inflate = zlib.decompressobj(wbits=31)
        self.body_read = b""
        super().__init__(url, headers={"Accept-Encoding": "gzip, deflate, br, zstd"}, **options)
        assert self.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in self.headers["vary"]

    def chunk(self) -> bytes:
        data = super().chunk()
        self.body_read += data
        return self.inflate.decompress(data)


def quote(n: int) -> dict[str, object]:
    return {"n": n, "symbol": "ACME", "bid": n * 7 % 100, "note": "as agreed " * 30}


def test_every_client_gets_every_event_at_once_with_and_without_gzip(
    serve: Serve, empty_valkey: str, tmp_path: Path
) -> None:
    server = serve(http_compression="true", heartbeat=0.5)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    cursor = announcer.publish(quote(0), channel="a")
    announcer.publish(quote(1), channel="a")
    with nginx_before(server.port, tmp_path) as proxy:
        url = f"{server.url}/stream?channels=a"
        plain = Stream(url)
        assert "content-encoding" not in plain.headers
        assert "Accept-Encoding" in plain.headers["vary"]
        streams: list[Stream] = [plain]
        streams += [Inflating(f"{base}/stream?channels=a") for base in (server.url, proxy) for _ in range(3)]
        streams.append(Inflating(url, version="1.0"))
        connections = [stream.next_of("sse.open").json()["connection"] for stream in streams]
        seen: list[list[int]] = [[] for _ in streams]
        delays = []
        for n in range(2, 24):
            exclude = connections[1] if n == 10 else None
            if n == 14:  # two more clients: one has missed events, one gets batches
                streams += [Inflating(url, cursor=cursor), Inflating(f"{url}&batch=10")]
                seen += [[0], []]
                assert [event.json()["n"] for event in streams[-2].take(13)] == list(range(1, 14))
                streams[-1].next_of("sse.open")
            if n == 18:
                for stream in streams:
                    stream.next_of("sse.heartbeat")
            sent = time.monotonic()
            announcer.publish(quote(n), channel="a", exclude=exclude)
            for index, stream in enumerate(streams):
                if n == 10 and index == 1:
                    continue
                event = stream.next_of("message", "sse.batch")
                found = event.json()
                data = found if event.type == "message" else only(found)
                assert data["n"] == n
                delays.append(event.at - sent)
                seen[index].append(n)
        assert seen[0] == list(range(2, 24))
        assert max(delays) < stretched(5)  # they came at once, not only with the next event
        server.process.terminate()
        for stream in streams:
            rest = []
            with contextlib.suppress(EOFError):  # a body without chunks ends so
                for event in stream:
                    rest.append(event)
            assert rest[-1].type == "sse.close"
            if isinstance(stream, Inflating):
                assert stream.inflate.eof  # checksum and length are right
                assert gzip.decompress(stream.body_read).endswith(b"\n\n")
    text = server.log.read_text()
    assert "Traceback" not in text


def only(batch: list[dict[str, str]]) -> Any:
    """The data of the only event in a batch."""
    (message,) = batch
    return json.loads(message["data"])


def test_a_slow_client_is_closed_and_can_come_back(serve: Serve, empty_valkey: str) -> None:
    server = serve(http_compression="true", max_buffer=300_000, write_timeout=300)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    url = f"{server.url}/stream?channels=a"
    with Inflating(url, receive_buffer=4096) as slow, Inflating(url) as quick:
        for stream in (slow, quick):
            stream.next_of("sse.open")
        first = announcer.publish("first", channel="a")
        assert slow.next_of("message").id == first
        count = 0
        while count < 3000:
            events = [{"data": noise(n), "channel": "a"} for n in range(count, count + 100)]
            announcer.publish_many(events)
            quick.take(100)
            count += 100
        got = [event for event in slow if event.type == "message"]
        assert 0 < len(got) < count
    with Inflating(url, cursor=slow.cursor) as again:
        again.next_of("sse.open")
        assert again.next_of("message", "sse.reset").type == "sse.reset"  # the history keeps only 1000 events


def noise(n: int) -> str:
    """Text that compresses badly."""
    return "".join(hashlib.sha256(f"{n}.{k}".encode()).hexdigest() for k in range(60))


def test_another_sse_client_reads_a_compressed_stream(serve: Serve, empty_valkey: str) -> None:
    server = serve(http_compression="true")
    announcer = MessageAnnouncer.from_url(empty_valkey)
    with (
        httpx.Client(timeout=60, trust_env=False) as client,
        client.stream("GET", f"{server.url}/stream?channels=a") as response,
    ):
        assert response.headers["content-encoding"] == "gzip"
        events = EventSource(response).iter_sse()
        assert next(events).event == "sse.open"
        for n in range(20):
            announcer.publish(quote(n), channel="a")
            assert next(events).json() == quote(n)
