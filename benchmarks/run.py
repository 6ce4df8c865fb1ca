"""Runs the benchmark: `python -m benchmarks.run [--cases …] [--peers …] [--quick]`. See README.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import report
from .cases import CASES, Sizes
from .peers.base import Peer, Settings
from .peers.registry import PEERS
from .process import ROOT, free_port, raise_file_limit
from .setup import PYTHON

HERE = ROOT / "benchmarks"
#: Descriptors that a server or the client needs besides its streams.
SPARE_FILES = 300


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    files = raise_file_limit()
    settings = prepare(options.python, options.logs, options.server_cpu, options.client_cpu)
    peers, skipped = installed([cls(settings) for cls in PEERS if cls.name in options.peers])
    older = report.read(options.out) if options.update else None
    sizes = fitting(Sizes.small() if options.quick else Sizes(), files)
    rounds = {case: 1 if case in options.once else options.repeat for case in options.cases}
    results, errors = run(peers, rounds, sizes)
    ran = [peer for peer in peers if any(peer.name in found for found in results.values())]
    document = report.document(
        results,
        titles={cls.name: cls.title for cls in PEERS},
        versions={peer.name: peer.versions() for peer in ran},
        skipped=skipped,
        errors=errors,
        sizes={**asdict(sizes), "rounds": rounds, "quick": options.quick},
    )
    if older is not None:
        document = report.updated(older, document)
    write_pages(document, options.python, options.out)
    return 1 if errors else 0


def write_pages(document: dict[str, Any], python: Path, out: Path) -> None:
    """Writes the run's JSON, chart and page into a folder, and prints the page."""
    report.write(document, out)
    chart = draw(python, out)
    page = report.markdown(document, chart=chart)
    (out / "benchmarks.md").write_text(page, "utf-8")
    print(page)


def prepare(
    python: Path, logs: str | None = None, server_cpu: int | None = 0, client_cpu: int | None = 1
) -> Settings:
    """Builds the C programs, moves this process to the clients' core, and returns the settings of the
    servers. With None for a core, the processes run on any core."""
    raise_file_limit()
    if client_cpu is not None:
        os.sched_setaffinity(0, {client_cpu})
    build = Path(os.environ.get("BUILD", HERE / "build"))
    subprocess.run(["make", "-s", "-C", str(HERE), f"BUILD={build}"], check=True)
    folder = Path(logs or tempfile.mkdtemp(prefix="bench-logs-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"logs of the servers: {folder}")
    return Settings(python, build, folder, server_cpu, client_cpu)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [cls.name for cls in PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("--cases", type=_list_of(CASES), default=list(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--peers", type=_list_of(names), default=names, help=f"of {','.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: a smoke test, not a measurement")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the tables show medians (default 1)")
    parser.add_argument("--once", type=_list_of(CASES), default=[], help="cases that run only one round")
    parser.add_argument("--update", action="store_true", help="keep other cases of the run in --out")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for the tables and charts")
    parser.add_argument("--logs", help="folder for the servers' error output (default: a temporary one)")
    parser.add_argument(
        "--python",
        type=Path,
        default=PYTHON if PYTHON.exists() else Path(sys.executable),
        help="interpreter of the Python servers (default: the venv of benchmarks.setup, else this one)",
    )
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    return parser.parse_args(arguments)


def _list_of(known: Sequence[str] | dict[str, Any]) -> Any:
    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return read


def installed(peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    found: list[Peer] = []
    skipped: dict[str, str] = {}
    for peer in peers:
        how = peer.missing()
        if how is None:
            found.append(peer)
        else:
            skipped[peer.name] = how
            print(f"skipped {peer.name}: {how}")
    return found, skipped


def fitting(sizes: Sizes, files: int) -> Sizes:
    """Returns the sizes, reduced to what the limit of open files allows."""
    most = files - SPARE_FILES
    names = ("steady_streams", "idle_streams", "storm_streams", "heartbeat_streams", "groups", "churn_idle")
    too_big = {name: most for name in names if getattr(sizes, name) > most}
    for name in too_big:
        print(f"{name} reduced to {most}: a process may open {files} files")
    return Sizes(**{**asdict(sizes), **too_big})


def run(
    peers: Sequence[Peer], cases: Mapping[str, int], sizes: Sizes
) -> tuple[report.Results, dict[str, str]]:
    """Runs every case with every server, one after another. Returns the results and the errors.

    The servers alternate within each round, so that a slow minute of the machine does not hit all rounds of
    one server. A ratio is the median of the ratios of the rounds.

    :param cases: The number of rounds of each case.
    """
    results: report.Results = {}
    errors: dict[str, str] = {}
    for case, repeat in cases.items():
        rounds: list[dict[str, dict[str, Any]]] = []
        for _ in range(repeat):
            rounds.append({})
            for peer in (peer for peer in peers if case in peer.cases):
                try:
                    with started(peer):
                        figures = CASES[case](peer, sizes)
                except Exception as error:
                    errors[f"{peer.name}, {case}"] = f"{type(error).__name__}: {error}"
                    print(f"{case:10} {peer.name:15} FAILED {error}", flush=True)
                else:
                    rounds[-1][peer.name] = figures
                    print(f"{case:10} {peer.name:15} {shown(figures)}", flush=True)
            report.add_ratios(case, rounds[-1])
        if found := report.medians(rounds):
            results[case] = found
    return results, errors


@contextmanager
def started(peer: Peer) -> Iterator[None]:
    try:
        peer.start(free_port(), peer.settings.server_cpu)
        yield
    finally:
        peer.stop()


def shown(figures: dict[str, Any]) -> str:
    return "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in figures.items())


def draw(python: Path, out: Path) -> bool:
    """Draws the chart of the run in `out`; returns False if it failed."""
    command = [str(python), "-m", "benchmarks.chart", str(out.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["?"])[-1]
        print(f"no chart: {reason} (python -m benchmarks.setup installs matplotlib)")
    return not done.returncode


if __name__ == "__main__":
    sys.exit(main())
