"""The known values of labels are those that the code counts. Each of them has a series from the beginning."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY

from flask_sse_push.hub.counters import Counters, Gauges
from flask_sse_push.monitoring import labels, signals
from flask_sse_push.monitoring.prometheus import COUNTERS, Exporter
from tests.support.processes import ROOT


def source(*packages: str) -> str:
    """Returns the code of some packages, or of all."""
    paths = [ROOT / "flask_sse_push" / package for package in packages or (".",)]
    return "".join(file.read_text("utf-8") for path in paths for file in sorted(path.rglob("*.py")))


def test_a_counter_begins_with_0_for_each_value_that_is_known() -> None:
    assert labels.KNOWN.keys() == {name for name, counter in COUNTERS.items() if counter._labelnames}
    Exporter(Counters(), Gauges)
    for name, values in labels.KNOWN.items():
        (label,), metric = COUNTERS[name]._labelnames, COUNTERS[name]._name
        for value in values:
            assert REGISTRY.get_sample_value(f"{metric}_total", {label: value}) is not None, (name, value)


def test_the_known_values_are_those_of_the_code() -> None:
    assert set(labels.SIGNALS) == set(signals._signals)
    assert set(labels.CALLBACKS) == {*re.findall(r'\bcalling\("([^"]+)"', source()), *labels.SIGNALS}
    repeated = r'background\.start\("([^"]+)"(?!.*repeat=False)|\(+"([a-z]+)", \S+\.run\)'
    started = {name for names in re.findall(repeated, source()) for name in names}
    assert set(labels.THREADS) <= started
    ends = r'(?:self|stream)\.reason = (?:.* or )?"(\w+)"|"(\w+)", reconnect='
    reasons = {
        name for names in re.findall(ends, source("hub", "transports", "auth")) for name in names if name
    }
    assert set(labels.REASONS) - reasons == {"client", "logout", "closed", "error"}  # these are passed on
    assert reasons <= set(labels.REASONS)


def test_the_page_about_metrics_names_each_reason() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `sse_push_streams_closed_total.*", page, re.MULTILINE)
    assert set(labels.REASONS) <= set(re.findall(r"`(\w+)`", row))
