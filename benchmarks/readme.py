"""Writes the figures of the published run into the README's table: `python -m benchmarks.readme`.

`make bench` runs this.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from .process import ROOT
from .report import given_less

README, RUN = ROOT / "README.md", ROOT / "docs/benchmarks.json"
#: Lines of the README before and after the table.
BEGIN, END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->\n"
#: Case, figure, heading, digits.
COLUMNS = (
    ("steady", "cpu_us", "CPU for an event and stream, µs", 1),
    ("steady", "p99_ms", "latency p99, ms", 0),
    ("burst", "deliveries_per_s_from_publish", "burst, deliveries/s", 0),
    ("idle", "kb_per_stream", "memory of an idle stream, kB", 1),
    ("handshake", "cpu_us", "CPU for a handshake, µs", 0),
    ("users", "fast_cpu_us", "CPU for an event to one user, µs", 0),
    ("publish", "many_per_s", "events/s, published 100 at a time", 0),
)


def main() -> int:
    run = json.loads(RUN.read_text("utf-8"))
    README.write_text(with_section(README.read_text("utf-8"), run), "utf-8")
    return 0


def with_section(readme: str, run: Mapping[str, Any]) -> str:
    """Returns the README with the table replaced by the run's."""
    place = re.compile(f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", re.DOTALL)
    return place.sub(lambda _: section(run), readme, count=1)


def section(run: Mapping[str, Any]) -> str:
    """Returns the table, followed by a line about the machine and the versions."""
    names = [name for name in run["titles"] if name in run["results"]["steady"]]
    lines = [
        "| server | " + " | ".join(heading for _, _, heading, _ in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *(_row(run, name) for name in names),
        "",
        *_crowd(run["results"].get("crowd", {}).get("push-hijack")),
        f"Measured on {run['date']}: {_machine(run['machine'])}; {_versions(run['versions'])}.",
    ]
    return "\n".join(lines) + "\n"


def _row(run: Mapping[str, Any], name: str) -> str:
    results = run["results"]
    cells = [_cell(results[case].get(name, {}).get(figure), digits) for case, figure, _, digits in COLUMNS]
    title = run["titles"][name] + given_less(results["steady"][name])
    return f"| {title} | " + " | ".join(cells) + " |"


def _crowd(figures: Mapping[str, Any] | None) -> list[str]:
    """Returns a line about the crowd, if the run has one."""
    if figures is None:
        return []
    streams, workers, lost, doubled = (figures[name] for name in ("streams", "workers", "lost", "doubled"))
    return [
        f"{streams:,} streams on {workers} workers, with the clients on the same two cores: an event reached "
        f"all streams in {figures['event_s']:.1f} s. The streams took {figures['memory_mb']:.0f} MB of the "
        f"workers' memory. After one worker was killed, all streams were open again within "
        f"{figures['back_s']:.0f} s; {lost} events were lost, and {doubled} came twice.",
        "",
    ]


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{max(0.0, value):,.{digits}f}"


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}"


def _versions(versions: Mapping[str, Mapping[str, str]]) -> str:
    parts = {part: version for each in versions.values() for part, version in each.items()}
    return ", ".join(f"{part} {version}" for part, version in parts.items())


if __name__ == "__main__":
    sys.exit(main())
