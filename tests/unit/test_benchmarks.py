"""The README and the site show the figures of the published benchmark run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import goals, readme, report
from tests.support.processes import ROOT

RUN = ROOT / "docs/benchmarks.json"
README = (ROOT / "README.md").read_text("utf-8")
SCALING = (ROOT / "docs/scaling.md").read_text("utf-8")


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RUN.read_text("utf-8"))
    return found


def test_the_readme_shows_the_table_of_the_run_and_its_date_and_versions(run: dict[str, Any]) -> None:
    assert readme.with_section(README, run) == README
    for part in (run["date"], "gunicorn ", "gevent ", "nchan ", "| flask-sse"):
        assert part in readme.section(run)
        assert part in README


def test_the_sites_page_is_made_from_the_run_and_shows_the_chart(run: dict[str, Any]) -> None:
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    assert page == report.markdown(run, chart=True)
    assert "](benchmarks.svg)" in page
    for name in ("benchmarks.svg", "benchmarks.png"):
        assert (ROOT / "docs" / name).stat().st_size > 10_000


def test_the_published_run_is_complete(run: dict[str, Any]) -> None:
    assert run["errors"] == {}
    assert run["skipped"] == {}
    assert not run["sizes"]["quick"]
    measured = [goal for goal in goals.GOALS if goals.measured(run["results"], *goal[1:5]) is not None]
    assert measured == list(goals.GOALS)


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    rounds = [
        {"push-hijack": {"cpu_us": mine}, "nchan": {"cpu_us": other}}
        for mine, other in ((2, 1), (9, 6), (4, 8))
    ]
    rounds.append({"push-hijack": {"cpu_us": 5}})
    for one in rounds:
        report.add_ratios("steady", one)
    found = report.medians(rounds)
    assert found["push-hijack"] == {"cpu_us": 4.5, "cpu_us_vs_nchan": 1.5}
    assert goals.measured({"steady": found}, "steady", "cpu_us", "push-hijack", "nchan") == 1.5


def test_only_the_older_table_is_replaced(run: dict[str, Any]) -> None:
    older = f"before\n{readme.BEGIN}| old |\n{readme.END}after\n"
    newer = readme.with_section(older, run)
    assert newer == f"before\n{readme.BEGIN}{readme.section(run)}{readme.END}after\n"


@pytest.mark.parametrize(
    ("name", "column", "place"),
    [
        ("deliver", 0, ("steady", "push-hijack", "cpu_us")),
        ("deliver", 1, ("steady", "push-generator", "cpu_us")),
        ("connect", 0, ("handshake", "push-hijack", "cpu_us")),
        ("stream", 0, ("idle", "push-hijack", "kb_per_stream")),
        ("stream", 1, ("idle", "push-generator", "kb_per_stream")),
        ("kernel", 0, ("idle", "push-hijack", "kernel_kb_per_stream")),
        ("worker", 0, ("idle", "push-hijack", "empty_kb")),
        ("store", 0, ("publish", "push-hijack", "redis_cpu_us")),
        ("send", 0, ("publish", "push-hijack", "redis_cpu_us_per_worker")),
    ],
)
def test_the_costs_in_the_docs_are_near_those_of_the_run(
    run: dict[str, Any], name: str, column: int, place: tuple[str, str, str]
) -> None:
    """They may differ by a factor of two, because runs differ."""
    row = re.search(rf"^\|[^|]+\| `{name}` \|(.+)\|$", SCALING, re.MULTILINE)
    assert row
    number, unit = row[1].split("|")[column].split()
    in_docs = float(number) * (1000 if unit == "MB" else 1)
    case, server, figure = place
    assert 0.5 < in_docs / run["results"][case][server][figure] < 2


def test_the_cost_of_preparing_an_event_is_its_total_cost_minus_the_delivery(run: dict[str, Any]) -> None:
    row = re.search(r"`prepare` \| ([\d.]+) µs", SCALING)
    assert row
    results = run["results"]
    whole = results["groups"]["push-hijack"]["own_cpu_us"]
    assert 0.5 < float(row[1]) / (whole - results["steady"]["push-hijack"]["cpu_us"]) < 2


def test_measuring_latency_costs_at_most_half_a_percent_of_a_core() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency_cost"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "share of a core" in done.stdout
