"""Do two gunicorn masters on one Redis serve twice as much as one? `python -m benchmarks.machines`.

It measures one master and two masters in turns. The first master has core 0, the second has core 1. Redis,
the publisher and the clients use core 1 in both cases. The CPU clock of each master shows what an event costs
it: if the second master disturbed the first, an event would cost the first master more.

It also shows deliveries per second by the wall clock. They say less: with two masters, core 1 is shared by
the second master, Redis and the clients, and a second machine would not have the clients' work.
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

from .client import Client
from .peers.base import Settings
from .peers.push.driver import PushHijack
from .process import free_port
from .run import prepare
from .work import CPU, Counters, settle, warm_up

STREAMS, RATE, SECONDS, SIZE, BURST = 1000, 40, 3, 200, 500


class Second(PushHijack):
    """A second master, on the Redis of the first."""

    def __init__(self, settings: Settings, first: PushHijack) -> None:
        super().__init__(settings)
        self._first = first

    @property
    def redis_url(self) -> str:
        return self._first.redis_url

    def launch(self, cpu: int | None) -> subprocess.Popen[str]:
        assert self.redis
        self.redis.stop()  # `start` has started a separate one
        self.redis = None
        return super().launch(cpu)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    figures = measure(prepare(Path(sys.executable)), options.rounds)
    for name, value in figures.items():
        print(f"{name:28}{value:,.2f}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(settings: Settings, rounds: int) -> Counters:
    """Returns the medians of all rounds."""
    first = PushHijack(settings)
    second = Second(settings, first)
    with ExitStack() as running:
        for peer, cpu in ((first, settings.server_cpu), (second, settings.client_cpu)):
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
    """Returns the CPU in µs of each master per event and stream, and of Redis per event."""
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
    _check_complete(reports)
    costs = [seconds * 1e6 / report["events"] for seconds, report in zip(spent, reports, strict=True)]
    named = dict(zip((f"{name}_first_us", f"{name}_second_us"), costs, strict=False))
    return {**named, f"{name}_redis_us": redis_us}


def _burst(peers: Sequence[PushHijack], name: str) -> Counters:
    """Returns the deliveries per second of all masters together, from the first publish to the last
    delivery."""
    with ExitStack() as opened:
        clients = [opened.enter_context(Client(peer, STREAMS, events=BURST)) for peer in peers]
        settle()
        peers[0].publish(BURST, 0, SIZE, batch=BURST)
        reports = [client.wait() for client in clients]
    _check_complete(reports)
    events = sum(report["events"] for report in reports)
    return {f"{name}_deliveries_per_s": events / max(report["since_stamp_s"] for report in reports)}


def _check_complete(reports: Sequence[dict[str, Any]]) -> None:
    short = sum(report["streams"] - report["complete"] for report in reports)
    if short:
        raise RuntimeError(f"{short} streams did not get all events")


if __name__ == "__main__":
    sys.exit(main())
