"""What does stream compression cost and save? `python -m benchmarks.compression` takes about a minute.

It publishes JSON events of 436 bytes at a steady rate to one channel, in alternating rounds with and without
`SSE_PUSH_HTTP_COMPRESSION`. A third server sends short events without compression, with about as many bytes
on the wire as the compressed events: this is what the bytes alone cost. In the end it measures the compressor
alone, for groups of different sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from flask_sse_push import MessageAnnouncer
from flask_sse_push.hub.compression import SharedWindow, StreamCompression, WindowPool
from flask_sse_push.hub.stream import Recipients

from .client import Client
from .peers.base import Settings
from .peers.push.driver import PushHijack
from .process import raise_file_limit
from .run import HERE, started
from .work import CPU, settle, warm_up

#: Bytes of each event's data, and the goals: the most bytes on the wire per event, and the most µs.
SIZE, WANTED_BYTES, WANTED_US = 436, 90, 25.0
#: The goal for the CPU per event and stream: how many times that of the same events without compression.
WANTED_RATIO = 1.03
#: Bytes of a short event's data.
SHORT = 25
#: The servers: whether they compress, and the size of their events.
SERVERS = {"plain": (False, SIZE), "compressed": (True, SIZE), "short": (False, SHORT)}
#: Seconds within which all events must arrive.
PATIENCE = 30.0

NOTE = "delayed by fifteen minutes as agreed; "


def quotes(count: int, size: int = SIZE, seed: int = 7) -> Iterator[str]:
    """Yields JSON like an app's: the keys and some text are always the same, most values differ."""
    chance = random.Random(seed)
    for n in range(count):
        order = {"order": f"{chance.getrandbits(48):012x}"}
        if size <= SHORT:
            yield json.dumps(order)
            continue
        quote: dict[str, Any] = {
            **order,
            "symbol": chance.choice(["AAPL", "GOOG", "MSFT", "TSLA", "NVDA"]),
            "bid": round(chance.uniform(90, 110), 2),
            "ask": round(chance.uniform(90, 110), 2),
            "volume": chance.randrange(100_000),
            "venue": chance.choice(["XNAS", "XNYS", "BATS"]),
            "time": f"2026-11-21T12:{n // 60 % 60:02}:{n % 60:02}.{chance.randrange(1000):03}Z",
            "note": "",
        }
        room = size - len(json.dumps(quote))
        yield json.dumps({**quote, "note": (NOTE * (room // len(NOTE) + 1))[:room]})


class Push(PushHijack):
    """flask_sse_push with or without compressed streams."""

    def __init__(self, settings: Settings, compressed: bool) -> None:
        super().__init__(settings)
        self.compressed = compressed
        self.headers = ("Accept-Encoding: gzip",)

    def env(self) -> Mapping[str, str]:
        return {**super().env(), "SSE_PUSH_HTTP_COMPRESSION": str(self.compressed).lower()}


# -- the bytes of one stream --------------------------------------------------------------------------------


class CountedStream:
    """A stream that reads its events and counts the bytes on the wire, with the chunked framing."""

    def __init__(self, peer: Push) -> None:
        self.size = 0  # bytes of the body on the wire
        self._text = b""
        self._socket = socket.create_connection(("127.0.0.1", peer.port), PATIENCE)
        self._file = self._socket.makefile("rb")
        request = f"GET {peer.path('bench')} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
        self._socket.sendall(request.encode())
        head = b"".join(iter(self._file.readline, b"\r\n"))
        if (b"content-encoding: gzip" in head.lower()) is not peer.compressed:
            raise RuntimeError(f"the answer has the wrong content encoding: {head!r}")
        self._inflate = zlib.decompressobj(wbits=31) if peer.compressed else None
        while b"event: sse.open" not in self._text:
            self._read()
        self.size = 0

    def _read(self) -> None:
        line = self._file.readline()
        chunk = self._file.read(int(line, 16) + 2)
        self.size += len(line) + len(chunk)
        self._text += self._inflate.decompress(chunk[:-2]) if self._inflate else chunk[:-2]

    def read(self, count: int) -> None:
        """Blocks until so many events have come. Raises TimeoutError."""
        while self._text.count(b'\ndata: {"order"') < count:
            self._read()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


# -- the server ---------------------------------------------------------------------------------------------


class Round(NamedTuple):
    """Figures of one server."""

    size: float  # bytes on the wire for each event and stream
    us: float  # CPU of the server for each event and stream
    streams: int


def steady(peer: Push, size: int, streams: int, events: int, rate: float) -> Round:
    """A steady rate of events to many streams of one channel, after a second for the caches."""
    warm_up(peer)
    announcer = MessageAnnouncer.from_url(peer.redis_url)
    with Client(peer, streams) as client:
        counted = CountedStream(peer)
        reader = threading.Thread(target=counted.read, args=(events + int(rate),), daemon=True)
        reader.start()
        texts = quotes(events + int(rate), size)
        publish(announcer, [next(texts) for _ in range(int(rate))], rate)
        settle()
        before, cpu = counted.size, CPU(peer)
        publish(announcer, list(texts), rate)
        reader.join(PATIENCE)
        us = cpu.seconds() * 1e6 / (events * (streams + 1))
        if reader.is_alive():
            raise RuntimeError("not all events arrived")
        sent = (counted.size - before) / events
        counted.close()
        opened = int(client.finish()["opened"])
    announcer.close()
    return Round(sent, us, opened)


def publish(announcer: MessageAnnouncer, texts: Sequence[str], rate: float) -> None:
    began = time.monotonic()
    for n, text in enumerate(texts):
        time.sleep(max(0.0, began + n / rate - time.monotonic()))
        announcer.publish(text, channel="bench")


# -- the compressor alone -----------------------------------------------------------------------------------


def compressing(streams: int, events: int = 2000) -> float:
    """Returns the CPU in µs of compressing one event for a group with this many streams, without writing
    it."""
    members: list[Any] = [SimpleNamespace(compression=StreamCompression()) for _ in range(streams)]
    window = SharedWindow(Recipients(members), WindowPool())
    for stream in members:
        stream.compression.join(window)
    frames = [
        f"id: 1f0c2a77-{n:09x}\nevent: quote\ndata: {text}\n\n".encode()
        for n, text in enumerate(quotes(events))
    ]
    for frame in frames[:200]:
        window.chunks(frame, {})
    began = time.process_time()
    for frame in frames[200:]:
        window.chunks(frame, {})
    return (time.process_time() - began) * 1e6 / (events - 200)


# -- the report ---------------------------------------------------------------------------------------------


def _size(figures: Round) -> str:
    return f"{figures.size:.0f}"


def _cost(figures: Round) -> str:
    return f"{figures.us:.2f}"


def report(found: Mapping[str, Sequence[Round]], alone: Mapping[int, float]) -> tuple[str, bool]:
    """Returns the report as Markdown, and whether the project's goals are reached."""
    middle = {
        name: Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        for name, rounds in found.items()
    }
    plain, compressed, short = (middle[name] for name in SERVERS)
    pairs = zip(found["compressed"], found["plain"], strict=True)
    ratio = statistics.median(one.us / other.us for one, other in pairs)
    sizes, costs = (" | ".join(form(each) for each in middle.values()) for form in (_size, _cost))
    lines = [
        f"| {plain.streams:,} streams | plain | compressed | short events, plain |",
        "|---|---|---|---|",
        f"| bytes of an event's data | {SIZE} | {SIZE} | {SHORT} |",
        f"| bytes on the wire per event and stream | {sizes} |",
        f"| CPU per event and stream, µs | {costs} |",
        f"| compressed / plain, median of the rounds | | {ratio:.2f} | |",
        "",
        "| streams in the group | CPU of the compressor per event, µs |",
        "|---|---|",
        *[f"| {streams:,} | {us:.1f} |" for streams, us in alone.items()],
        "",
    ]
    goals = {
        f"at most {WANTED_BYTES} bytes": compressed.size <= WANTED_BYTES,
        f"at most {WANTED_US:g} µs per event and group": max(alone.values()) <= WANTED_US,
        "no cost per client: at most 5 % more than as many bytes without compression": compressed.us
        <= 1.05 * short.us,
        f"at most {WANTED_RATIO:g} times the cost without compression": ratio <= WANTED_RATIO,
    }
    lines += [f"- {goal}: {'yes' if reached else 'no'}" for goal, reached in goals.items()]
    return "\n".join(lines), all(goals.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100, help="in each round (default 100)")
    parser.add_argument("--rate", type=float, default=20, help="events per second (default 20)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    raise_file_limit()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    build = Path(os.environ.get("BUILD", HERE / "build"))
    subprocess.run(["make", "-s", "-C", str(HERE), f"BUILD={build}"], check=True)
    logs = Path(tempfile.mkdtemp(prefix="bench-logs-"))
    settings = Settings(Path(sys.executable), build, logs, server_cpu=cores[0], client_cpu=cores[-1])
    found: dict[str, list[Round]] = {name: [] for name in SERVERS}
    for _ in range(options.rounds):
        for name, (compressed, size) in SERVERS.items():
            peer = Push(settings, compressed)
            with started(peer):
                found[name].append(steady(peer, size, options.streams, options.events, options.rate))
            print(f"{name:10} {found[name][-1]}", flush=True)
    text, reached = report(found, {streams: compressing(streams) for streams in (1, 100, 10_000)})
    print(text)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
