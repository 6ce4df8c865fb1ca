"""What do short streams cost beside streams that stay open? `python -m benchmarks.polling`, four minutes.

One worker on its own core serves 5,000 clients, first with streams and then with short streams (`?poll=25`).
Each client asks for the next short stream as soon as one has ended. For one minute nothing happens. Then, for
another minute, one event every ten seconds goes to all clients. The command prints the worker's CPU, its
memory, the requests of a client, and how long the events took.
"""

from __future__ import annotations

import argparse
import re
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flask_sse_push import MessageAnnouncer

from .peers.push.driver import PushHijack
from .process import cpu_seconds, rss_kb
from .run import prepare, started

#: Seconds for which a short stream waits, as PushClient asks for it.
POLL = 25
#: Clients that connect at the same time.
AT_ONCE = 200
#: Seconds within which all clients must have opened a stream.
PATIENCE = 120.0

_ID = re.compile(rb"^id: (.+)$", re.MULTILINE)
_STAMP = re.compile(rb"^data: (\d+)$", re.MULTILINE)


class Reader:
    """One client: its connection, and its newest cursor."""

    def __init__(self, port: int, short: bool) -> None:
        self._port = port
        self._query = f"channels=bench{f'&poll={POLL}' if short else ''}"
        self._cursor = ""
        self.opened = False
        self.connect()

    def connect(self) -> None:
        """Connects, and sends the request."""
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        cursor = f"&last_event_id={self._cursor}" if self._cursor else ""
        self.socket.sendall(f"GET /stream?{self._query}{cursor} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        self.socket.setblocking(False)

    def read(self) -> tuple[list[int], bool]:
        """Reads what has come. Returns the stamps of the events, and whether the stream has ended."""
        data = self.socket.recv(65536)
        for cursor in _ID.findall(data):
            self._cursor, self.opened = cursor.decode(), True
        return [int(stamp) for stamp in _STAMP.findall(data)], not data


class Figures(NamedTuple):
    """What one minute cost."""

    cpu: float  # percent of a core
    kilobytes: float  # the worker's memory for each client
    requests: float  # of each client, in a minute
    median: float  # milliseconds from `publish` to the client's `recv`; 0 without events
    p99: float


class Readers:
    """All clients, read by one loop."""

    def __init__(self, peer: PushHijack, count: int, short: bool) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Reader] = {}
        self.requests = 0
        self.delays: list[float] = []
        for number in range(count):
            self._add(Reader(peer.port, short))
            if number % AT_ONCE == 0:
                self.run(lambda: sum(not reader.opened for reader in self._readers.values()) < AT_ONCE)
        self.run(lambda: all(reader.opened for reader in self._readers.values()))

    def _add(self, reader: Reader) -> None:
        self.requests += 1
        self._readers[reader.socket.fileno()] = reader
        self._poll.register(reader.socket.fileno(), select.EPOLLIN)

    def run(self, done: Callable[[], bool]) -> None:
        """Reads until `done` returns true."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the clients are not ready after {PATIENCE:g} s")
            for number, _ in self._poll.poll(0.05):
                self._read(number)

    def _read(self, number: int) -> None:
        stamps, ended = self._readers[number].read()
        now = time.monotonic_ns()
        self.delays += [(now - stamp) / 1e6 for stamp in stamps]
        if ended:
            reader = self._readers.pop(number)
            self._poll.unregister(number)
            reader.socket.close()
            reader.connect()
            self._add(reader)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.socket.close()


def minute(peer: PushHijack, readers: Readers, idle_kb: float, every: float, seconds: float) -> Figures:
    """Measures for `seconds`, with an event to all clients every `every` seconds; 0: without events."""
    announcer = MessageAnnouncer.from_url(peer.redis_url)
    began, used, requests = time.monotonic(), cpu_seconds(peer.pids()), readers.requests
    readers.delays.clear()
    due = began + every

    def done() -> bool:
        nonlocal due
        now = time.monotonic()
        if every and now >= due and now < began + seconds - 2:
            due += every
            announcer.publish(str(time.monotonic_ns()), channel="bench")
        return now >= began + seconds

    readers.run(done)
    took = time.monotonic() - began
    count = len(readers._readers)
    delays = sorted(readers.delays) or [0.0]
    announcer.close()
    return Figures(
        100 * (cpu_seconds(peer.pids()) - used) / took,
        (rss_kb(peer.pids()) - idle_kb) / count,
        (readers.requests - requests) / count * 60 / took,
        statistics.median(delays),
        delays[int(0.99 * (len(delays) - 1))],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement (default 60)")
    options = parser.parse_args(arguments)
    settings = prepare(Path(sys.executable))
    print("clients        events         CPU of a core  memory/client  requests/min  median    p99")
    for short in (False, True):
        peer = PushHijack(settings)
        with started(peer):
            Readers(peer, 1, short).close()  # the worker has imported everything, and runs its threads
            idle_kb = rss_kb(peer.pids())
            readers = Readers(peer, options.clients, short)
            for every in (0.0, 10.0):
                found = minute(peer, readers, idle_kb, every, options.seconds)
                name = "short streams" if short else "streams"
                events = f"every {every:g} s" if every else "none"
                print(
                    f"{name:<14} {events:<14} {found.cpu:12.2f} %  {found.kilobytes:9.2f} kB  "
                    f"{found.requests:12.2f}  {found.median:6.1f} ms  {found.p99:6.1f} ms"
                )
            readers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
