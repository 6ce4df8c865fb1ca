"""Draws the chart of a run from its JSON file: `python -m benchmarks.chart FOLDER`. Needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .report import given_less

#: Case, figure, title, digits. Shorter bars are better except where the title says so.
PANELS = (
    ("steady", "cpu_us", "CPU per event and stream, µs", 1),
    ("steady", "p99_ms", "Latency p99, ms", 1),
    ("burst", "deliveries_per_s_from_publish", "Burst, deliveries/s (more is better)", 0),
    ("idle", "kb_per_stream", "Memory per idle stream, kB", 1),
    ("handshake", "cpu_us", "CPU per handshake, µs", 0),
    ("heartbeat", "cpu_percent", "CPU for idle streams, % of a core", 1),
)
OURS, LIMIT, OTHERS = "#1f6feb", "#57606a", "#b6bfc9"


def color(name: str) -> str:
    if name.startswith("push"):
        return OURS
    return LIMIT if name in ("broadcaster", "empty-view") else OTHERS


def panel(axes: Axes, run: dict[str, Any], case: str, figure: str, title: str, digits: int) -> None:
    found = run["results"].get(case, {})
    measured = [(figures[figure], name) for name, figures in found.items() if figure in figures]
    measured.sort(reverse="more" not in title)  # bars are drawn bottom up: best last
    values = [value for value, _ in measured]
    labels = [run["titles"][name] + given_less(found[name]) for _, name in measured]
    bars = axes.barh(labels, values, color=[color(name) for _, name in measured], height=0.66)
    axes.bar_label(bars, [f"{value:,.{digits}f}" for value in values], padding=4, fontsize=8)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.tick_params(length=0, labelsize=8)
    axes.set_xticks([])
    axes.set_xlim(0, max(values, default=1) * 1.22 or 1)
    axes.spines[:].set_visible(False)


def draw(run: dict[str, Any], out: Path) -> None:
    panels = [p for p in PANELS if any(p[1] in f for f in run["results"].get(p[0], {}).values())]
    rows = max(1, (len(panels) + 1) // 2)
    figure, grid = plt.subplots(rows, 2, figsize=(13, 2.6 * rows + 0.6), squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (case, name, title, digits) in zip(grid.flat, panels, strict=False):
        panel(axes, run, case, name, title, digits)
    figure.suptitle(f"Server-Sent Events, one server core, {run['date']}", x=0.01, ha="left", fontsize=12)
    figure.savefig(out / "benchmarks.png", dpi=150)
    # Without a fixed salt and date, each run would change every line of the SVG.
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    figure.savefig(out / "benchmarks.svg", metadata={"Date": run["date"]})


def main() -> None:
    out = Path(sys.argv[1])
    draw(json.loads((out / "benchmarks.json").read_text()), out)


if __name__ == "__main__":
    main()
