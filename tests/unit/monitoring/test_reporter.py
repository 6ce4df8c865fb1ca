"""The counters of a process, and how they get into Prometheus metrics."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from flask_sse_push.hub.counters import MAX_TIMES, CounterKey, Counters, Gauges
from flask_sse_push.hub.drain import at_exit
from flask_sse_push.monitoring import histograms
from flask_sse_push.monitoring.prometheus import Exporter
from flask_sse_push.monitoring.reporter import Reporter
from tests.support.deadline import eventually


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sse_push_{name}", labels) or 0.0


def test_the_exporter_adds_the_counts_since_the_last_export() -> None:
    counters, gauges = Counters(), [Gauges()]
    exporter = Exporter(counters, lambda: gauges[0])
    before = value("events_delivered_total"), value("refused_total", code="1202"), value("streams_open")
    counters.delivered += 5
    counters.count("refused", "1202")
    gauges[0] = Gauges(streams=4, buffered=10, reconnects=1, probe=0.25)
    exporter.export()
    exporter.export()
    counters.delivered += 2
    gauges[0] = Gauges(streams=1, buffered=0, reconnects=1, probe=0.5, recheck_lag=7.0)
    exporter.export()
    assert value("events_delivered_total") - before[0] == 7
    assert value("refused_total", code="1202") - before[1] == 1
    assert value("streams_open") - before[2] == 1
    assert (value("probe_seconds"), value("recheck_lag_seconds")) == (0.5, 7.0)


def test_every_count_has_a_metric() -> None:
    counters = Counters()
    counters.replayed(1, 2)
    counters.published(1)
    counters.delivered = counters.sent = 1
    exporter = Exporter(counters, Gauges)
    exporter.export()
    assert set(counters.totals()) == {
        CounterKey(name) for name in ("replayed", "replayed_bytes", "published", "delivered", "sent_bytes")
    }


def test_the_exporter_adds_each_measured_time_once() -> None:
    counters = Counters()
    exporter = Exporter(counters, Gauges)
    names = "socket_latency_seconds_sum", "browser_latency_seconds_sum"
    before = value(names[0], worker="0"), value(names[1])
    counters.written.extend([0.25, 0.5])
    counters.handled.append(2.0)
    exporter.export()
    exporter.export()
    assert value(names[0], worker="0") - before[0] == 0.75
    assert value(names[1]) - before[1] == 2.0


def test_times_that_nobody_exports_take_little_memory() -> None:
    counters = Counters()
    counters.written.extend([1.0] * 5000)
    assert len(counters.written) == MAX_TIMES


def test_a_worker_takes_the_lowest_free_number_as_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(histograms, "MAX_NAMES", 2)
    held: list[int] = []
    monkeypatch.setattr(histograms, "_locks", held)
    folder = str(tmp_path)
    assert [histograms.worker_name(folder) for _ in range(3)] == ["0", "1", "other"]
    os.close(held[0])
    assert histograms.worker_name(folder) == "0"
    assert histograms.worker_name(None) == "0"
    for descriptor in held[1:]:
        os.close(descriptor)


@pytest.fixture
def shared_metrics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes a reporter believe that several processes share their metrics, so that it exports by itself."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))


@pytest.mark.usefixtures("shared_metrics")
def test_the_first_count_starts_the_thread_and_closing_reports_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_sse_push.monitoring.reporter.INTERVAL", 0.01)
    reports: list[int] = []
    monkeypatch.setattr(Reporter, "export", lambda self: reports.append(len(self.counters.totals())))
    reporter = Reporter(Gauges)
    assert reporter.report not in at_exit
    reporter.counters.published(1)
    reporter.counters.published(1)
    eventually(lambda: len(reports) > 2)
    assert at_exit.count(reporter.report) == 1
    reporter.close()
    thread = next((t for t in threading.enumerate() if t.name == "flask-sse-push-reporter"), None)
    if thread is not None:
        thread.join(60)
    made = len(reports)
    reporter.close()
    assert len(reports) == made
    assert reporter.report not in at_exit


@pytest.mark.usefixtures("shared_metrics")
def test_a_report_that_fails_does_not_keep_the_next_one_from_being_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Reporter) -> None:
        raise OSError("disk full")

    caplog.set_level(logging.INFO, "flask_sse_push")
    monkeypatch.setattr(Reporter, "export", fail)
    reporter = Reporter(Gauges, log_totals=1e-9)
    reporter.counters.delivered = 1  # counted by the dispatcher, which starts no thread
    reporter.report()
    assert "disk full" in caplog.text
    assert "delivered 1" in caplog.text


def test_a_single_process_has_no_thread_for_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    before_exit = list(at_exit)
    reporter = Reporter(Gauges)
    reporter.counters.published(1)
    assert at_exit == before_exit
    before = value("events_published_total")
    reporter.export()
    assert value("events_published_total") - before == 1
    reporter.close()
