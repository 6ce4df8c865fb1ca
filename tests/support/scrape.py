"""Reads metrics as Prometheus does."""

from __future__ import annotations

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

TOKEN = {"Authorization": "Bearer scraper"}


class Samples(dict[tuple[str, str], float]):
    """Values by name (without `sse_push_`) and label value. A metric has at most one label."""

    def get_value(self, name: str, label: str = "") -> float:
        return self.get((name, label), 0.0)


def scrape(http: httpx.Client, url: str) -> Samples:
    """Gets `<url>/metrics` with the operators' token of tests.apps.monitored; returns all samples."""
    answer = http.get(f"{url}/metrics", headers=TOKEN)
    assert answer.status_code == 200, answer.text
    return parsed(answer.text)


def parsed(text: Any) -> Samples:
    """The samples in a text in Prometheus' format."""
    samples = Samples()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("sse_push_"):
                label = next(iter(sample.labels.values()), "")
                samples[sample.name.removeprefix("sse_push_"), label] = sample.value
    return samples
