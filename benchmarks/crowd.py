"""100,000 streams on one machine: `python -m benchmarks.crowd`. A full run takes two to three minutes.

One gunicorn master has as many workers as the streams need, and a spare one. All workers accept from the same
socket, as in production. The kernel spreads the streams: an idle worker accepts sooner than a busy one. A
worker that has no file descriptor left for another stream answers 503, and the stream tries again, as
push-client.js does. With one master for each address, the streams would be spread evenly, but the streams of
a killed worker could only come back to the master of their address. Here, the other workers take them, and so
does the worker that gunicorn starts instead.

Several load generators hold the streams, because a process may not open 100,000 files. They connect from
several addresses of 127.0.0.0/8, because one address has too few ports. No process is tied to a core, and all
have the same priority. An event that arrives at a load generator does not interrupt a worker (`--batch`),
because clients on other machines would not do that either.

The run measures:

- the seconds until all streams are open,
- the workers' memory above the memory of the same workers without streams,
- the seconds from a publish until all streams have the event: the median of ten events,
- how many events are lost or doubled when one worker is killed with SIGKILL while two events a second are
  published, and the seconds until all streams are open again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from flask_sse_push import MessageAnnouncer

from . import goals, report
from .cases import Sizes
from .client import Client
from .peers.base import Settings
from .peers.push.driver import PushHijack
from .process import open_files, raise_file_limit, rss_kb, tree
from .publisher import event_data
from .run import SPARE_FILES, prepare, started, write_pages
from .work import Counters, settle

SIZE = 200
#: Addresses that the load generators connect from. With 100,000 streams, a quarter of their ports is in use.
SOURCES = 16
#: How many new connections may wait for a worker. The kernel allows at most net.core.somaxconn.
BACKLOG = 4096
#: Streams of a worker, as a share of what its descriptors allow: the kernel does not spread streams evenly.
FULL = 0.75
#: Seconds between two events after the kill, and at least how many events are published then.
PAUSE, EVENTS_AFTER_KILL = 0.5, 8
#: Seconds within which all streams must get an event, or come back.
PATIENCE = 120


class Crowd(PushHijack):
    """flask_sse_push on several workers, with the default limits of streams and connections."""

    name = "crowd"

    def __init__(self, settings: Settings, workers: int) -> None:
        super().__init__(settings)
        self._workers = workers

    def command(self) -> Sequence[str | Path]:
        options = {"workers": self._workers, "backlog": BACKLOG, "worker-connections": 1000}
        return [*super().command(), *(f"--{name}={value}" for name, value in options.items())]

    def env(self) -> Mapping[str, str]:
        return {name: value for name, value in super().env().items() if name != "SSE_PUSH_MAX_STREAMS"}

    def workers(self) -> list[int]:
        """Returns the processes of the workers that run now."""
        assert self.process
        return tree(self.process.pid)[1:]


class Streams:
    """The streams of all load generators. They come back by themselves until the block ends."""

    def __init__(self, peer: Crowd, count: int, clients: int) -> None:
        self.count = count
        sizes = [count // clients + (n < count % clients) for n in range(clients)]
        more = ("--reconnect", "--batch", "--sources", str(SOURCES))
        timeout = 60 + count / 200

        def client(size: int) -> Client:
            return Client(peer, size, timeout=timeout, more=more)

        with ThreadPoolExecutor(clients) as pool:  # a Client waits until its streams are open
            opened = [pool.submit(client, size) for size in sizes]
        self._stack = ExitStack()
        with self._stack:
            for one in opened:
                if not one.exception():
                    self._stack.enter_context(one.result())
            self._clients = [one.result() for one in opened]  # raises the error of a client that failed
            self._stack = self._stack.pop_all()
        self.open_seconds = max(client.connect_seconds for client in self._clients)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def status(self, number: int) -> Counters:
        """Returns the counts of all streams, and how far they are with an event.

        `open` streams are open now, and `behind` streams have not got the event. `all_open_at` is the
        monotonic time at which the last stream opened. `seconds` is the time from the event's publish to the
        last stream that has got it. The other counts begin with the first connection.
        """
        found = [client.command(f"status {number}") for client in self._clients]
        worst = ("seconds", "all_open_at")
        return {name: (max if name in worst else sum)(each[name] for each in found) for name in found[0]}


class Publisher:
    """Publishes events that count up, to all streams."""

    def __init__(self, url: str) -> None:
        self._announcer = MessageAnnouncer.from_url(url)
        self.last = -1  # number of the last event

    def publish(self) -> None:
        self.last += 1
        self._announcer.publish(event_data(self.last, SIZE), channel="bench")


def sizes(streams: int, files: int) -> tuple[int, int]:
    """Returns how many workers to start, with a spare one, and how many load generators.

    :param files: How many files a process may open.
    :raises SystemExit: if the machine has no room for so many streams.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if streams > SOURCES * (high - low) * 0.6:
        raise SystemExit(f"{SOURCES} addresses have too few ports: raise net.ipv4.ip_local_port_range")
    tracked = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    if tracked.exists() and streams * 1.5 > int(tracked.read_text()):
        raise SystemExit("the firewall tracks too few connections: raise net.netfilter.nf_conntrack_max")
    room = files - SPARE_FILES
    spare = 1  # the streams of a killed worker need room in the others
    return max(2, math.ceil(streams / (room * FULL)) + spare), max(2, math.ceil(streams / room))


def warm_up(peer: Crowd, workers: int) -> None:
    """Opens streams until each worker has had some, so that imports and first connections do not count."""
    publisher = Publisher(peer.redis_url)
    for _ in range(PATIENCE):
        before = {pid: open_files([pid]) for pid in peer.workers()}
        with Streams(peer, 100 * workers, 1) as streams:
            # For the load generator, a stream is open with its first byte. New workers send a comment first,
            # then `sse.open` when they know the broker's position. Events from before that do not come.
            settle(1)
            publisher.publish()
            _until(lambda: not streams.status(publisher.last)["behind"], streams, publisher)
            served = [pid for pid, files in before.items() if open_files([pid]) > files + 10]
        settle()
        if len(served) == workers:
            return
    raise RuntimeError("not all workers get streams")


def measure(settings: Settings, count: int, events: int = 10, workers: int = 0) -> Counters:
    """Runs everything once; returns the figures.

    :param workers: The number of workers; 0 means as many as the streams need, and a spare one.
    """
    needed, clients = sizes(count, raise_file_limit())
    workers = workers or needed
    peer = Crowd(settings, workers)
    with started(peer):
        warm_up(peer, workers)
        pids = peer.workers()
        idle_kb, idle_files = rss_kb(pids), {pid: open_files([pid]) for pid in pids}
        with Streams(peer, count, clients) as streams:
            settle(1)
            memory_kb = rss_kb(pids) - idle_kb
            spread = [open_files([pid]) - files for pid, files in idle_files.items()]
            publisher = Publisher(peer.redis_url)
            reached = [one_event(streams, publisher) for _ in range(events + 1)][1:]  # the first warms up
            refused = streams.status(publisher.last)["refused"]
            return {
                "streams": count, "workers": workers, "load_generators": clients,
                "open_s": streams.open_seconds, "refused_at_first": refused,
                "fewest_streams": min(spread), "most_streams": max(spread),
                "idle_mb": idle_kb / 1e3, "memory_mb": memory_kb / 1e3, "kb_per_stream": memory_kb / count,
                "event_s": statistics.median(reached), "event_worst_s": max(reached),
                **kill_one(peer, streams, publisher),
            }  # fmt: skip


def one_event(streams: Streams, publisher: Publisher) -> float:
    """Publishes an event; returns the seconds until all streams have it."""
    settle()
    publisher.publish()
    _until(lambda: not streams.status(publisher.last)["behind"], streams, publisher)
    return float(streams.status(publisher.last)["seconds"])


def kill_one(peer: Crowd, streams: Streams, publisher: Publisher) -> Counters:
    """Kills a worker while events are published; returns what became of its streams."""
    before = streams.status(publisher.last)
    victim = peer.workers()[0]
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    first = publisher.last + 1
    deadline = killed_at + PATIENCE
    while publisher.last - first < EVENTS_AFTER_KILL or _missing(streams, publisher):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all streams are back: {streams.status(publisher.last)}")
        publisher.publish()
        time.sleep(max(0.0, killed_at + (publisher.last - first + 1) * PAUSE - time.monotonic()))
    _until(lambda: not streams.status(publisher.last)["behind"], streams, publisher)
    after = streams.status(publisher.last)
    return {
        "killed_streams": after["ended"] - before["ended"],
        "back_s": after["all_open_at"] - killed_at,
        "refused_after_kill": after["refused"] - before["refused"],
        "events_after_kill": publisher.last - first + 1,
        **{name: after[name] for name in ("lost", "doubled", "resets")},
    }


def _missing(streams: Streams, publisher: Publisher) -> bool:
    """Whether some streams are not open, or have not got the event before the last."""
    status = streams.status(publisher.last - 1)
    return bool(status["open"] < streams.count or status["behind"])


def _until(condition: Callable[[], bool], streams: Streams, publisher: Publisher) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            status = streams.status(publisher.last)
            raise RuntimeError(f"not all streams got event {publisher.last} within {PATIENCE} s: {status}")
        time.sleep(0.05)


def add_to_run(figures: Counters, folder: Path, settings: Settings) -> None:
    """Adds the figures to the run in a folder, and writes its page and chart again."""
    run = report.read(folder)
    run["results"]["crowd"] = {PushHijack.name: figures}
    run["sizes"]["crowd_streams"] = figures["streams"]
    run["sizes"]["rounds"]["crowd"] = 1
    write_pages(run, settings.python, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd")
    parser.add_argument(
        "--streams", type=int, default=Sizes().crowd_streams, help="default 100000; 2000 for a smoke test"
    )
    parser.add_argument("--events", type=int, default=10, help="events whose median counts (default 10)")
    parser.add_argument("--workers", type=int, default=0, help="default: one more than the streams need")
    parser.add_argument("--out", type=Path, help="folder of a run, to which the figures are added")
    parser.add_argument("--logs", help="folder for the servers' error output (default: a temporary one)")
    options = parser.parse_args(arguments)
    settings = prepare(Path(sys.executable), options.logs, server_cpu=None, client_cpu=None)
    figures = measure(settings, options.streams, options.events, options.workers)
    (settings.build / "crowd.json").write_text(json.dumps(figures, indent=1) + "\n")
    if options.out:
        add_to_run(figures, options.out, settings)
    for name, value in figures.items():
        print(f"{name:20}{value:,.3f}" if isinstance(value, float) else f"{name:20}{value:,}")
    results = {"crowd": {PushHijack.name: figures}}
    print("\n".join(goals.table(results)))
    return 0 if all(reached for *_, reached in goals.judged(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
