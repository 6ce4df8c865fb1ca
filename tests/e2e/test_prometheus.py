"""The dashboard and the alerts of the documentation, with a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx
import yaml

from tests.support.deadline import eventually
from tests.support.processes import ROOT, need
from tests.support.prometheus import RULES, prometheus
from tests.support.stream import Stream

from .conftest import Serve

ALERT_TESTS = Path(__file__).with_name("alerts.test.yml")
PANELS = json.loads((ROOT / "docs/grafana.json").read_text())["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_prometheus_understands_every_query_of_the_dashboard_and_knows_its_metrics(
    serve: Serve, http: httpx.Client, tmp_path: Path
) -> None:
    server = serve("tests.apps.monitored:app", probe=0.2, drain=0)
    url = f"{server.url}/stream"
    with (
        prometheus(tmp_path, f"127.0.0.1:{server.port}", "/stream/metrics", "scraper", "200ms") as asked,
        Stream(f"{url}?channels=a") as stream,
    ):
        stream.next_of("sse.open")
        http.post(f"{server.url}/publish/a")
        stream.next_of("message")
        assert http.get(f"{url}?channels=a%20b").status_code == 400
        assert http.post(f"{url}/report", json={"opened": 1, "latency": [12, 7]}).status_code == 204

        def shows(query: str) -> bool:
            return bool(asked.query(query))

        known = eventually(lambda: metrics_of(asked.get("metadata")))
        queried = {name for query in QUERIES for name in named(query)}
        assert queried <= known
        for query in QUERIES:
            eventually(lambda query=query: shows(query))  # type: ignore[misc]
        p99 = asked.query("histogram_quantile(0.99, sum by (le) (sse_push_browser_latency_seconds_bucket))")
        assert 0.01 < float(p99[0]["value"][1]) <= 0.025

        rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == set(alerts())
        eventually(lambda: all(rule["health"] == "ok" for rule in rules_of(asked.get("rules"))))


def named(query: str) -> set[str]:
    """The metrics in a query, without the ends of the names of their samples."""
    names = re.findall(r"sse_push_[a-z_]+", query)
    return {re.sub("_(bucket|sum|count|total)$", "", name) for name in names}


def metrics_of(metadata: dict[str, object]) -> set[str]:
    """The names of the metrics that Prometheus has scraped."""
    return {name for name in metadata if name.startswith("sse_push_")}


def rules_of(groups: dict[str, list[dict[str, list[dict[str, str]]]]]) -> list[dict[str, str]]:
    return [rule for group in groups["groups"] for rule in group["rules"]]


def alerts() -> list[str]:
    rules = yaml.safe_load(RULES.read_text())
    return [rule["alert"] for group in rules["groups"] for rule in group["rules"]]


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(ALERT_TESTS)]):
        done = subprocess.run([need("promtool"), *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    tested = {
        case["alertname"]
        for group in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for case in group["alert_rule_test"]
    }
    assert tested == set(alerts())


def test_prometheus_accepts_the_configuration_for_the_example_app() -> None:
    file = ROOT / "example_app/prometheus.yml"
    command = [need("promtool"), "check", "config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
