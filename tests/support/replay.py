"""Clients that ask one worker for much history, while others live on it; and what this costs the worker."""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from flask_sse_push import MessageAnnouncer

_ID = re.compile(rb"\nid: [a-z0-9]+-([0-9a-z]+)\nevent: full\n")


class Asked(NamedTuple):
    """What a client got that asked for history."""

    events: int
    in_order: bool
    told: bool  # whether the client got `sse.reset` or `sse.close`
    seconds: float


def fill(url: str, channels: Sequence[str], events: int, size: int, at_once: int = 50) -> None:
    """Fills the history of each channel, one channel after the other."""
    announcer = MessageAnnouncer.from_url(url)
    for channel in channels:
        for first in range(0, events, at_once):
            event = {"data": "x" * size, "type": "full", "channel": channel}
            announcer.publish_many([event] * min(at_once, events - first))
    announcer.close()


class Askers:
    """Clients in two processes of their own, with a thread for each client. They ask when `begin` is called.

    :param query: the query of the clients' requests.
    :param events: how many events each client waits for.
    """

    def __init__(self, port: int, query: str, events: int, count: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._results: Queue[Asked] = context.Queue()
        self._count = count
        self._ready = context.Barrier(3)
        options = port, query, events, seconds
        self._processes = [
            context.Process(target=_ask_all, args=(*options, of_this, self._ready, self._results))
            for of_this in (count // 2, count - count // 2)
        ]
        for process in self._processes:
            process.start()

    def begin(self) -> None:
        """Blocks until both processes have started, and lets the clients ask."""
        self._ready.wait(60)

    @property
    def at_work(self) -> bool:
        """Whether a client still waits for events."""
        return any(process.is_alive() for process in self._processes) and self._results.qsize() < self._count

    def results(self, seconds: float) -> list[Asked]:
        """Returns what each client got."""
        return [self._results.get(timeout=seconds) for _ in range(self._count)]


def _ask_all(
    port: int, query: str, events: int, seconds: float, count: int, ready: Barrier, results: Queue[Asked]
) -> None:
    os.nice(19)  # these clients must not take the processor from the clients whose latency is measured
    ready.wait(60)
    with ThreadPoolExecutor(max(1, count)) as pool:
        for asked in pool.map(lambda _: ask(port, query, events, seconds), range(count)):
            results.put(asked)


def ask(port: int, query: str, events: int, seconds: float) -> Asked:
    """Opens a stream and reads until it has brought `events` events, a reset or a close."""
    began = time.monotonic()
    found, last, in_order, told, rest = 0, b"", True, False, b""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.sendall(f"GET /stream?{query} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
        with suppress(TimeoutError):
            while found < events and not told and time.monotonic() < began + seconds:
                data = connection.recv(1_000_000)
                if not data:
                    break
                rest += data
                end = rest.rfind(b"\n\n") + 1  # a frame begins after an empty line
                whole, rest = b"\n" + rest[:end], rest[end:]
                told = any(b"\nevent: sse.%b\n" % name in whole for name in (b"reset", b"close"))
                for id in _ID.findall(whole):
                    in_order = in_order and (len(last), last) < (len(id), id)
                    last, found = id, found + 1
    return Asked(found, in_order, told, time.monotonic() - began)


def memory_of(pid: int, peak: bool = False) -> float:
    """Returns the resident memory of a process in megabytes: now, or at most since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+)" if peak else r"VmRSS:\s*(\d+)", status)
    return int(kilobytes) / 1000


def forget_peak(pid: int) -> None:
    """Makes the kernel measure the highest resident memory of a process anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
