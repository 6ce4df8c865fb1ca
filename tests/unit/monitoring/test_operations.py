"""The dashboard, the alerts and the documentation name existing metrics; the first and the last name all."""

from __future__ import annotations

import json
import re

import pytest

from flask_sse_push.monitoring import histograms, prometheus
from tests.support.processes import ROOT

GAUGES = (
    prometheus.STREAMS,
    prometheus.BUFFERED,
    prometheus.LINK_DOWN,
    prometheus.PROBE,
    prometheus.RECHECK_LAG,
    prometheus.OUTBOX,
    prometheus.OUTBOX_AGE,
)
HISTOGRAMS = (histograms.WRITTEN, histograms.HANDLED)
EXPOSED = {f"{counter._name}_total" for counter in prometheus.COUNTERS.values()}
EXPOSED |= {metric._name for metric in (*GAUGES, *HISTOGRAMS)}


def named_in(text: str) -> set[str]:
    """The metrics in a text. A histogram has samples of its own names, such as `…_bucket`."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"sse_push_[a-z_]+", text)}


def test_the_documentation_names_all_metrics() -> None:
    assert named_in((ROOT / "docs/operations.md").read_text()) == EXPOSED


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_queries_name_existing_metrics(name: str) -> None:
    named = named_in((ROOT / "docs" / name).read_text())
    assert named
    assert named <= EXPOSED


def test_the_dashboard_shows_all_metrics() -> None:
    text = (ROOT / "docs/grafana.json").read_text()
    assert named_in(text) == EXPOSED
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_each_alert_has_a_row_in_the_table_of_advice() -> None:
    alerts = set(re.findall(r"alert: (\w+)", (ROOT / "docs/alerts.yml").read_text()))
    table = (ROOT / "docs/operations.md").read_text().partition("## What to do when")[2]
    assert alerts == set(re.findall(r"`(SsePush\w+)`", table))
