"""One gunicorn master and two on one Redis, in turns: `python -m benchmarks.machines`. Do they add up?

The first master has core 0, the second core 1, which Redis, the publisher and the clients use in both
cases. So what a master costs can be compared, by its own CPU clock: were the second one in the way of the
first, an event would cost it more. Deliveries a second by the wall clock are shown too, but with two
masters three parties share core 1, and the clients' half of the work is not what a second machine would
have to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .cases import CPU, Counters, settle, warm_up
from .client import Client
from .peers.base import Desk
from .peers.push.driver import PushHijack
from .process import free_port
from .run import desk

STREAMS, RATE, SECONDS, SIZE, BURST = 1000, 40, 3, 200, 500


class Second(PushHijack):
    """Another master on the Redis of the first."""

    def __init__(self, at: Desk, first: PushHijack) -> None:
        super().__init__(at)
        self._first = first

    @property
    def redis_url(self) -> str:
        return self._first.redis_url

    def launch(self, cpu: int) -> subprocess.Popen[str]:
        assert self.redis
        self.redis.stop()  # it came with one of its own
        self.redis = None
        return super().launch(cpu)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    figures = measure(desk(Path(sys.executable)), options.rounds)
    for name, value in figures.items():
        print(f"{name:28}{value:,.2f}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(at: Desk, rounds: int) -> Counters:
    """Medians of all rounds."""
    first = PushHijack(at)
    second = Second(at, first)
    with ExitStack() as running:
        for peer, cpu in ((first, at.server_cpu), (second, at.client_cpu)):
            running.callback(peer.stop)
            peer.start(free_port(), cpu)
            warm_up(peer)
        sides = {"one": [first], "two": [first, second]}
        found: list[Counters] = [{} for _ in range(rounds)]
        for figures in found:
            for name, peers in sides.items():
                figures |= _steady(peers, name) | _burst(peers, name)
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    per_core = {name: 1e6 / medians[name] for name in ("one_first_us", "two_first_us", "two_second_us")}
    one, two = per_core["one_first_us"], per_core["two_first_us"] + per_core["two_second_us"]
    ratio = statistics.median(each["two_first_us"] / each["one_first_us"] for each in found)
    return {
        **medians, "first_two_vs_one": ratio, "one_per_core_second": one, "two_per_two_core_seconds": two,
        "capacity_two_vs_one": two / one,
    }  # fmt: skip


def _steady(peers: Sequence[PushHijack], name: str) -> Counters:
    """CPU µs for each event and stream of each master, and of Redis for each event."""
    count = RATE * SECONDS
    redis = peers[0].redis
    assert redis
    with ExitStack() as opened:
        clients = [opened.enter_context(Client(peer, STREAMS, events=count)) for peer in peers]
        settle()
        clocks, before = [CPU(peer) for peer in peers], redis.cpu_seconds()
        peers[0].publish(count, RATE, SIZE)
        reports = [client.wait() for client in clients]
        spent = [clock.seconds() for clock in clocks]
        redis_us = (redis.cpu_seconds() - before) * 1e6 / count
    _whole(reports)
    costs = [seconds * 1e6 / report["events"] for seconds, report in zip(spent, reports, strict=True)]
    named = dict(zip((f"{name}_first_us", f"{name}_second_us"), costs, strict=False))
    return {**named, f"{name}_redis_us": redis_us}


def _burst(peers: Sequence[PushHijack], name: str) -> Counters:
    """Deliveries a second of all masters together, from the first publish to the last delivery."""
    with ExitStack() as opened:
        clients = [opened.enter_context(Client(peer, STREAMS, events=BURST)) for peer in peers]
        settle()
        peers[0].publish(BURST, 0, SIZE, batch=BURST)
        reports = [client.wait() for client in clients]
    _whole(reports)
    events = sum(report["events"] for report in reports)
    return {f"{name}_deliveries_per_s": events / max(report["since_stamp_s"] for report in reports)}


def _whole(reports: Sequence[dict[str, Any]]) -> None:
    short = sum(report["streams"] - report["complete"] for report in reports)
    if short:
        raise RuntimeError(f"{short} streams did not get all events")


if __name__ == "__main__":
    sys.exit(main())
