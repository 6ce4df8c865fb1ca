"""What is counted, and how it comes into Prometheus metrics."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import REGISTRY

from flask_sse_push.hub.counters import CounterKey, Counters, Gauges
from flask_sse_push.hub.shutdown import at_exit
from flask_sse_push.monitoring.prometheus import Exporter
from flask_sse_push.monitoring.reporter import Pulse, Reporter
from tests.support.deadline import eventually


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sse_push_{name}", labels) or 0.0


def test_the_exporter_adds_what_is_new() -> None:
    counters, gauges = Counters(), [Gauges()]
    exporter = Exporter(counters.totals, lambda: gauges[0])
    before = value("events_delivered_total"), value("refused_total", code="1202"), value("streams_open")
    counters.delivered += 5
    counters.count("refused", "1202")
    gauges[0] = Gauges(streams=4, buffered=10, reconnects=1, probe=0.25)
    exporter.flush()
    exporter.flush()
    counters.delivered += 2
    gauges[0] = Gauges(streams=1, buffered=0, reconnects=1, probe=0.5)
    exporter.flush()
    assert value("events_delivered_total") - before[0] == 7
    assert value("refused_total", code="1202") - before[1] == 1
    assert value("streams_open") - before[2] == 1
    assert value("probe_seconds") == 0.5


def test_all_that_is_counted_has_a_metric() -> None:
    counters = Counters()
    counters.replayed(1, 2)
    counters.published(1)
    counters.delivered = counters.sent = 1
    exporter = Exporter(counters.totals, Gauges)
    exporter.flush()
    assert set(counters.totals()) == {
        CounterKey(name) for name in ("replayed", "replayed_bytes", "published", "delivered", "sent_bytes")
    }


def test_the_first_count_starts_the_pulse_and_closing_tells_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_push.monitoring.reporter.EVERY", 0.01)
    beats: list[int] = []
    pulse = Pulse([lambda: beats.append(1)])
    assert not beats
    pulse.wake()
    pulse.wake()
    eventually(lambda: len(beats) > 2)
    assert at_exit.count(pulse.beat) == 1
    pulse.close()
    thread = next((t for t in threading.enumerate() if t.name == "flask-sse-push-pulse"), None)
    if thread is not None:
        thread.join(60)
    told = len(beats)
    pulse.close()
    assert len(beats) == told
    assert pulse.beat not in at_exit


def test_an_action_that_fails_keeps_none_from_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    beats: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    Pulse([fail, lambda: beats.append(1)]).beat()
    assert beats == [1]
    assert "disk full" in caplog.text


def test_a_process_alone_has_no_thread_for_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    words = list(at_exit)
    reporter = Reporter(Gauges)
    reporter.counters.published(1)
    assert at_exit == words
    before = value("events_published_total")
    reporter.export()
    assert value("events_published_total") - before == 1
    reporter.close()
