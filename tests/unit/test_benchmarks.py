"""The published run of the benchmark: the README and the site show what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import goals, readme, report
from tests.support.processes import ROOT

RUN = ROOT / "docs/benchmarks.json"
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RUN.read_text("utf-8"))
    return found


def test_the_readme_shows_the_table_of_the_run_and_its_date_and_versions(run: dict[str, Any]) -> None:
    assert readme.with_section(README, run) == README
    for part in (run["date"], "gunicorn ", "gevent ", "nchan ", "| flask-sse"):
        assert part in readme.section(run)
        assert part in README


def test_the_page_of_the_site_is_made_of_the_run_and_shows_the_chart(run: dict[str, Any]) -> None:
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    assert page == report.markdown(run, chart=True)
    assert "](benchmarks.svg)" in page
    for name in ("benchmarks.svg", "benchmarks.png"):
        assert (ROOT / "docs" / name).stat().st_size > 10_000


def test_the_published_run_is_whole(run: dict[str, Any]) -> None:
    assert run["errors"] == {}
    assert run["skipped"] == {}
    assert not run["sizes"]["quick"]
    measured = [goal for goal in goals.GOALS if goals.measured(run["results"], *goal[1:5]) is not None]
    assert measured == list(goals.GOALS)


def test_an_older_table_is_replaced_and_nothing_else(run: dict[str, Any]) -> None:
    older = f"before\n{readme.BEGIN}| old |\n{readme.END}after\n"
    newer = readme.with_section(older, run)
    assert newer == f"before\n{readme.BEGIN}{readme.section(run)}{readme.END}after\n"
