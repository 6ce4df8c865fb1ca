"""What is counted, and how it comes into Prometheus metrics."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import REGISTRY

from flask_sse_push import drain
from flask_sse_push.figures import Count, Figures, Levels
from flask_sse_push.meters import Meters
from flask_sse_push.metrics import Exporter
from flask_sse_push.pulse import Pulse
from tests.support.deadline import eventually


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sse_push_{name}", labels) or 0.0


def test_the_exporter_adds_what_is_new() -> None:
    figures, levels = Figures(), [Levels()]
    exporter = Exporter(figures.totals, lambda: levels[0])
    before = value("events_delivered_total"), value("refused_total", code="1202"), value("streams_open")
    figures.delivered += 5
    figures.count("refused", "1202")
    levels[0] = Levels(streams=4, buffered=10, reconnects=1, probe=0.25)
    exporter.flush()
    exporter.flush()
    figures.delivered += 2
    levels[0] = Levels(streams=1, buffered=0, reconnects=1, probe=0.5)
    exporter.flush()
    assert value("events_delivered_total") - before[0] == 7
    assert value("refused_total", code="1202") - before[1] == 1
    assert value("streams_open") - before[2] == 1
    assert value("probe_seconds") == 0.5


def test_all_that_is_counted_has_a_metric() -> None:
    figures = Figures()
    figures.replayed(1, 2)
    figures.published(1)
    figures.delivered = figures.sent = 1
    exporter = Exporter(figures.totals, Levels)
    exporter.flush()
    assert set(figures.totals()) == {
        Count(name) for name in ("replayed", "replayed_bytes", "published", "delivered", "sent_bytes")
    }


def test_the_first_count_starts_the_pulse_and_closing_tells_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_sse_push.pulse.EVERY", 0.01)
    beats: list[int] = []
    pulse = Pulse([lambda: beats.append(1)])
    assert not beats
    pulse.wake()
    pulse.wake()
    eventually(lambda: len(beats) > 2)
    assert drain.last_words.count(pulse.beat) == 1
    pulse.close()
    thread = next((t for t in threading.enumerate() if t.name == "flask-sse-push-pulse"), None)
    if thread is not None:
        thread.join(60)
    told = len(beats)
    pulse.close()
    assert len(beats) == told
    assert pulse.beat not in drain.last_words


def test_an_action_that_fails_keeps_none_from_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    beats: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    Pulse([fail, lambda: beats.append(1)]).beat()
    assert beats == [1]
    assert "disk full" in caplog.text


def test_a_process_alone_has_no_thread_for_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    words = list(drain.last_words)
    meters = Meters(Levels)
    meters.figures.published(1)
    assert drain.last_words == words
    before = value("events_published_total")
    meters.export()
    assert value("events_published_total") - before == 1
    meters.close()
