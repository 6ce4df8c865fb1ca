"""Brings what `flask sse capacity` reckons with up to a run: `python -m benchmarks.measured [JSON]`.

The figures are in flask_sse_push/capacity/measured.json, each with the place in the run's JSON (case, server,
figure) that it comes from. What the run did not measure keeps its value.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .process import ROOT

RUN = ROOT / "docs" / "benchmarks.json"
TABLE = ROOT / "flask_sse_push" / "capacity" / "measured.json"


def found(run: dict[str, Any], place: list[str]) -> float | None:
    """The figure at `place` of a run; None when it was not measured."""
    value: Any = run["results"]
    for key in place:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    return float(value) if isinstance(value, (int, float)) else None


def updated(table: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The table with what the run has measured."""
    figures = {}
    for name, each in table["figures"].items():
        value = found(run, each["from"])
        figures[name] = each if value is None else {**each, "value": float(f"{value:.3g}")}
    return {**table, "date": run["date"], "machine": run["machine"]["processor"], "figures": figures}


def main() -> int:
    run = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else RUN).read_text())
    if run["sizes"].get("quick"):
        print("a run with --quick measures nothing")
        return 1
    table = updated(json.loads(TABLE.read_text()), run)
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
