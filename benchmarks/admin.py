"""What does an open admin page cost? `python -m benchmarks.admin`, three minutes.

One worker on its own core holds 10,000 idle streams. The command measures the worker's CPU in turn: while
nobody watches; while one viewer has the live stream of the admin page open; and while this viewer's page also
reads the list of streams every 5 seconds, as the page does while it shows the list. It prints what the viewer
adds, in percent of a core, and how many bytes a second the viewer gets. Idle streams get heartbeats, which
cost the same in all three.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from .client import Client
from .peers.push.driver import PushHijack
from .process import cpu_seconds
from .run import prepare, started

#: Percent of a core that a viewer may add.
GOAL = 1.0
#: Seconds between two reads of the list by the page.
REFRESH = 5.0
#: What is measured in each round.
KINDS = ("nobody", "live stream", "live stream and list")
#: Seconds that pass before each measurement. Longer than the lease, so that the last viewer is forgotten.
SETTLE = 30.0


class Administered(PushHijack):
    app = "benchmarks.peers.push.administered:app"


class Viewer:
    """An open admin page: reads the live stream in a thread, and perhaps the list of streams."""

    def __init__(self, port: int, lists: bool) -> None:
        self.received = 0
        self._port, self._lists = port, lists
        self._closed = threading.Event()
        self._live = socket.create_connection(("127.0.0.1", port))
        self._live.sendall(b"GET /stream?channels=sse.admin HTTP/1.1\r\nHost: bench\r\n\r\n")
        self._threads = [threading.Thread(target=self._read_live)]
        if lists:
            self._threads.append(threading.Thread(target=self._read_lists))
        for thread in self._threads:
            thread.start()

    def _read_live(self) -> None:
        while data := self._live.recv(1 << 16):
            self.received += len(data)

    def _read_lists(self) -> None:
        while not self._closed.wait(REFRESH):
            url = f"http://127.0.0.1:{self._port}/stream/admin/streams"
            with urllib.request.urlopen(url, timeout=30) as answer:
                self.received += len(answer.read())

    def close(self) -> None:
        """Closes the page, and waits for its threads."""
        self._closed.set()
        self._live.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._live.close()


def cost(peer: Administered, kind: str, seconds: float) -> tuple[float, float]:
    """Returns the worker's CPU in percent of a core, and how many bytes a second the viewer got."""
    time.sleep(SETTLE)
    viewer = None if kind == "nobody" else Viewer(peer.port, kind.endswith("list"))
    time.sleep(1)  # the first reports have come
    began, used = time.monotonic(), cpu_seconds(peer.pids())
    before = viewer.received if viewer else 0
    time.sleep(seconds)
    took = time.monotonic() - began
    cpu = 100 * (cpu_seconds(peer.pids()) - used) / took
    received = (viewer.received - before) / took if viewer else 0.0
    if viewer:
        viewer.close()
    return cpu, received


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement (default 30)")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    peer = Administered(prepare(Path(sys.executable)))
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with started(peer), Client(peer, options.streams, timeout=120):
        for _ in range(options.rounds):
            for kind in KINDS:
                found[kind].append(cost(peer, kind, options.seconds))
    base = statistics.median(cpu for cpu, _ in found["nobody"])
    print(f"{options.streams} idle streams    CPU of a core  viewer adds  viewer gets")
    for kind, figures in found.items():
        cpu, received = (statistics.median(values) for values in zip(*figures, strict=True))
        print(f"{kind:<22} {cpu:14.2f} %  {cpu - base:9.2f} %  {received:8.0f} B/s")
    added = statistics.median(cpu for cpu, _ in found["live stream"]) - base
    print(f"goal: a viewer adds at most {GOAL:g} % of a core: {'reached' if added <= GOAL else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
