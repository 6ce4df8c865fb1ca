"""Compares this checkout with another one in one run: `python -m benchmarks.versions ../before`.

One minute of a machine differs from the next by more than the few per cent that matter here. So in the cases
steady and one stream both versions run at the same time and take turns (see `pairs`). In the cases handshake
and storm they alternate from round to round, and the median counts. Each version serves from its own
checkout. The publisher and the clients come from this checkout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .cases import Sizes, handshake, storm
from .pairs import in_turns
from .peers.base import Peer, Settings
from .peers.push.variants import Variant
from .process import ROOT, spawn
from .run import prepare, started

#: The largest ratio of the new cost to the old: 3 % more.
ALLOWED = 1.03
#: Events per second in the case with one stream.
SLOW = 20.0


class Version(Variant):
    """flask_sse_push from a checkout."""

    def __init__(self, settings: Settings, root: Path, name: str) -> None:
        super().__init__(settings)
        self._root = root.resolve()
        self.name = name

    def launch(self, cpu: int | None) -> subprocess.Popen[str]:
        log = self.settings.logs / f"{self.name}.log"
        return spawn(self.command(), cpu, env=self.env(), log=log, root=self._root)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions")
    parser.add_argument("before", type=Path, help="the checkout to compare with")
    parser.add_argument("--turns", type=int, default=150, help="pairs of turns of steady and one stream")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of handshake and storm")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    settings = prepare(Path(sys.executable))
    after, before = Version(settings, ROOT, "after"), Version(settings, options.before, "before")
    found = {name: CASES[name]((after, before), options) for name in options.cases.split(",")}
    print("case         before     after      ratio  within 3 %")
    for name, figures in found.items():
        kept = "yes" if figures["ratio"] <= ALLOWED else "no"
        print(
            f"{name:12} {figures['before']:<10.4g} {figures['after']:<10.4g} {figures['ratio']:.3f}  {kept}"
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(figures["ratio"] > ALLOWED for figures in found.values()) else 0


Versions = tuple[Version, Version]


def _by_turns(streams: int, rate: float) -> Callable[[Versions, argparse.Namespace], dict[str, Any]]:
    def measure(versions: Versions, options: argparse.Namespace) -> dict[str, Any]:
        figures = in_turns(versions, options.turns, streams, rate)
        return {
            "before": figures["off_us"], "after": figures["on_us"], "ratio": figures["median"],
            "error": figures["error"],
        }  # fmt: skip

    return measure


def _by_rounds(
    case: Callable[[Peer, Sizes], dict[str, Any]], figure: str
) -> Callable[[Versions, argparse.Namespace], dict[str, Any]]:
    def measure(versions: Versions, options: argparse.Namespace) -> dict[str, Any]:
        rounds: dict[str, list[float]] = {version.name: [] for version in versions}
        for number in range(options.rounds):
            for version in versions if number % 2 else reversed(versions):
                with started(version):
                    rounds[version.name].append(case(version, Sizes())[figure])
        after, before = (statistics.median(rounds[version.name]) for version in versions)
        return {"before": before, "after": after, "ratio": after / before, "rounds": rounds}

    return measure


#: CPU microseconds per event and stream, per event, per handshake, and per returning stream.
CASES = {
    "steady": _by_turns(1000, 40.0),
    "one-stream": _by_turns(1, SLOW),
    "handshake": _by_rounds(handshake, "cpu_us"),
    "storm": _by_rounds(storm, "cpu_us_per_stream"),
}

if __name__ == "__main__":
    sys.exit(main())
