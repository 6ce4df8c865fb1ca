"""Compares two servers that take turns: `python -m benchmarks.pairs monitored,authorized`.

Metrics and logs cost a few per cent, and so do identities and rechecks. One minute of a machine differs from
the next by more. So both servers run all the time with all their streams, and take turns of a quarter of a
second: on, off, off, on. Each pair of turns gives a ratio of CPU per event and stream. The result is the
median of the ratios, with their quartiles. Run it with an interpreter that has flask_sse_push and its extras,
such as .venv/bin/python.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flask_sse_push import MessageAnnouncer

from .client import Client
from .peers.push.variants import Authorized, Monitored, Public, Unmonitored, Variant
from .process import free_port
from .publisher import event_data
from .run import prepare
from .work import CPU, settle

#: The pairs: the server with the feature, the server without it, and the goal: the most additional CPU.
PAIRS = {"monitored": (Monitored, Unmonitored, 0.03), "authorized": (Authorized, Public, 0.03)}
STREAMS, RATE, TURN, SIZE = 1000, 40, 10, 200  # TURN: events in one turn


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs")
    parser.add_argument("pairs", nargs="?", default=",".join(PAIRS), help=f"of {','.join(PAIRS)}")
    parser.add_argument("--turns", type=int, default=150, help="pairs of turns (default 150)")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    found = {}
    for name in options.pairs.split(","):
        found[name] = compare(name, options.turns)
        print(f"{name}: {sentence(found[name])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(verdict(figures) == "refuted" for figures in found.values()) else 0


def verdict(figures: dict[str, Any]) -> str:
    """Returns whether the goal is proved, refuted or undecided, given the error of the median."""
    more, doubt = figures["median"] - 1, 2 * figures["error"]
    if more + doubt <= figures["wanted"]:
        return "proved"
    return "refuted" if more - doubt > figures["wanted"] else "undecided: more turns, or a quieter machine"


def sentence(figures: dict[str, Any]) -> str:
    more = figures["median"] - 1
    return (
        f"{more:+.1%} CPU per event and stream (quartiles {figures['q1'] - 1:+.1%} and "
        f"{figures['q3'] - 1:+.1%}, error of the median {figures['error']:.1%}, {figures['turns']} turns; "
        f"in the least disturbed turns {figures['calm'] - 1:+.1%}; "
        f"{figures['on_us']:.2f} and {figures['off_us']:.2f} µs): "
        f"at most {figures['wanted']:.0%} is {verdict(figures)}"
    )


def compare(name: str, turns: int) -> dict[str, Any]:
    """Returns the figures of one pair. Takes about 0.6 s per turn."""
    with_it, without, wanted = PAIRS[name]
    settings = prepare(Path(sys.executable))
    return {"wanted": wanted, **in_turns((with_it(settings), without(settings)), turns)}


def in_turns(
    peers: tuple[Variant, Variant], turns: int, streams: int = STREAMS, rate: float = RATE
) -> dict[str, Any]:
    """Runs both servers at once, in turns, and compares the first with the second.

    :returns: `median`, `q1`, `q3` and `error` of the ratio, `calm` (the ratio in the least disturbed turns),
        and `on_us` and `off_us`: CPU microseconds per event and stream of each.
    """
    with ExitStack() as running:
        sides = [_started(peer, streams, running) for peer in peers]
        settle(2)
        costs = []
        for number in range(turns + 1):
            order = (0, 1) if number % 2 else (1, 0)
            costs.append({at: turn(*sides[at], number, streams, rate) for at in order})
        del costs[0]  # the first turn filled the caches
    ratios = [pair[0] / pair[1] for pair in costs]
    q1, median, q3 = statistics.quantiles(ratios, n=4)
    # Other work on the machine only adds CPU, so each server's cheapest tenth of turns was disturbed least.
    on, off = ([pair[at] for pair in costs] for at in (0, 1))
    calm = statistics.quantiles(on, n=10)[0] / statistics.quantiles(off, n=10)[0]
    return {
        "turns": turns, "median": median, "q1": q1, "q3": q3,
        "calm": calm, "error": 1.25 * (q3 - q1) / 1.35 / math.sqrt(turns),
        "on_us": statistics.median(on),
        "off_us": statistics.median(off),
    }  # fmt: skip


def _started(peer: Variant, streams: int, running: ExitStack) -> tuple[Variant, MessageAnnouncer]:
    """Starts a server with all its streams. Returns it and the announcer that publishes to it."""
    running.callback(peer.stop)
    peer.start(free_port(), peer.settings.server_cpu)
    running.enter_context(Client(peer, streams, path=peer.stream_path(), timeout=3600))
    announcer = MessageAnnouncer.from_url(peer.redis_url)
    running.callback(announcer.close)
    return peer, announcer


def turn(peer: Variant, announcer: MessageAnnouncer, number: int, streams: int, rate: float) -> float:
    """Publishes events for one turn. Returns the CPU in microseconds per event and stream."""
    cpu, began = CPU(peer), time.monotonic()
    peer.before_turn(number)
    for at in range(TURN):
        time.sleep(max(0.0, began + at / rate - time.monotonic()))
        announcer.publish(event_data(at, SIZE), channel="bench")
    time.sleep(max(0.05, began + TURN / rate + 0.05 - time.monotonic()))
    return cpu.seconds() * 1e6 / TURN / streams


if __name__ == "__main__":
    sys.exit(main())
