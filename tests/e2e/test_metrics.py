"""Metrics over several gunicorn workers, and after a worker was killed."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from tests.support.deadline import eventually
from tests.support.scrape import TOKEN, Samples, parsed, scrape
from tests.support.stream import Stream

from .conftest import Serve

APP = "tests.apps.monitored:app"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the workers of a test share their metrics."""
    path = tmp_path / "metrics"
    path.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(path))
    return path


def samples_in(folder: Path) -> Samples:
    """The samples in the files of the workers. The files stay when the workers have ended."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return parsed(generate_latest(registry).decode())


def test_any_worker_reports_the_metrics_of_all_workers(
    serve: Serve, http: httpx.Client, folder: Path, transport: str
) -> None:
    server = serve(APP, workers=2, drain=0.2, probe=0.3)
    url = f"{server.url}/stream"
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(Stream(f"{url}?channels=a")) for _ in range(8)]
        for stream in streams:
            stream.next_of("sse.open")
        for _ in range(3):
            http.post(f"{server.url}/publish/a")
        for stream in streams:
            for _ in range(3):
                stream.next_of("message")
        assert http.get(f"{url}?channels=a%20b").status_code == 400

        def all_delivered() -> Samples | None:
            samples = scrape(http, url)
            return samples if samples.get_value("events_delivered_total") == 24 else None

        samples = eventually(all_delivered) or Samples()
        assert samples.get_value("sent_bytes_total") > 24 * 100
        eventually(lambda: scrape(http, url).get_value("streams_open") == 8)
        eventually(lambda: scrape(http, url).get_value("events_published_total") == 3)
        eventually(lambda: scrape(http, url).get_value("refused_total", "1301") == 1)
        eventually(lambda: 0 < scrape(http, url).get_value("probe_seconds") < 5)
        assert scrape(http, url).get_value("streams_opened_total") == 8

        streams.pop().close()
        published = 0

        def close_counted() -> bool:
            """Publishes one more event: the generator transport notices at its second write that a client
            left. Two events may go out in one write."""
            nonlocal published
            http.post(f"{server.url}/publish/a")
            published += 1
            return scrape(http, url).get_value("streams_closed_total", "client") == 1

        eventually(close_counted)
        cursor = streams[0].cursor
        for (
            stream
        ) in streams:  # now both workers have had all events, so the returning client gets no live event
            for _ in range(published):
                stream.next_of("message")
        returned = open_streams.enter_context(Stream(f"{url}?channels=a", cursor=cursor))
        assert [returned.next_of("message").data for _ in range(published)]
        eventually(lambda: scrape(http, url).get_value("events_replayed_total") == published)

        assert server.stop() == 0
    last = samples_in(folder)
    assert last.get_value("streams_closed_total", "drain") == 8
    assert last.get_value("streams_opened_total") == 9


def test_totals_survive_a_killed_worker_but_its_open_streams_do_not_count(
    serve: Serve, http: httpx.Client, folder: Path
) -> None:
    server = serve(APP, workers=1)
    url = f"{server.url}/stream"
    with Stream(f"{url}?channels=a") as stream:
        stream.next_of("sse.open")
        eventually(lambda: scrape(http, url).get_value("streams_open") == 1)
        [pid] = server.worker_pids()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.worker_pids() not in ([], [pid]))
    http.close()
    with httpx.Client(timeout=60, trust_env=False) as new_http:
        samples = eventually(lambda: scrape(new_http, url))
    assert samples.get_value("streams_open") == 0
    assert samples.get_value("streams_opened_total") == 1


def test_metrics_of_several_workers_without_a_folder_say_what_to_set(
    serve: Serve, http: httpx.Client
) -> None:
    server = serve(APP, workers=2)
    answer = http.get(f"{server.url}/stream/metrics", headers=TOKEN)
    assert answer.status_code == 503
    assert "PROMETHEUS_MULTIPROC_DIR" in answer.json()["message"]
