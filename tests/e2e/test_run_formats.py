"""Runs in the formats of front ends, under gunicorn: workers that stop or are killed while clients read."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.deadline import eventually
from tests.support.run_reader import RunReader, reader_on

from .conftest import Serve
from .test_runs import APP, start


def test_a_reader_of_a_worker_that_ends_resumes_on_another_and_gets_the_same_text(serve: Serve) -> None:
    server = serve(APP, workers=2, drain=0.5)
    run = start(server, "a", 200, 0.02)
    whole = "".join(f"{number} " for number in range(200))
    for number in (signal.SIGTERM, signal.SIGKILL):
        reader = reader_on(server, "a", lambda pid: pid != run["pid"])
        stayed = reader_on(server, "a", lambda pid: pid == run["pid"])
        os.kill(reader.worker, number)
        reader.read()
        # The body breaks off, so the client sees a network error and knows that it may resume.
        assert not reader.stream.complete
        assert not reader.is_done
        assert whole.startswith(reader.text)
        resumed = RunReader(server, "a").read_text()
        assert resumed.text.startswith(reader.text)
        assert len([chunk for chunk in resumed.chunks if chunk["type"] == "text-delta"]) == 1
        stayed.stream.close()
        eventually(lambda: len(server.worker_pids()) == 2, 20)
    resumed = RunReader(server, "a").read()
    assert resumed.text == whole
    assert resumed.chunks[-1] == {"type": "finish"}
    assert resumed.is_done
    assert resumed.stream.complete
    eventually(lambda: RunReader(server, "a").stream.status == 204)


@pytest.mark.parametrize(("transport", "version"), [("generator", "1.1"), ("hijack", "1.0")])
def test_a_reader_that_could_not_see_a_cut_gets_an_error_when_its_worker_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, transport: str, version: str
) -> None:
    monkeypatch.setenv("SSE_PUSH_TRANSPORT", transport)
    server = serve(APP, workers=1, drain=0.5)
    start(server, "a", 150, 0.02)
    reader = RunReader(server, "a", version).read_text()
    os.kill(reader.worker, signal.SIGTERM)
    reader.read()
    assert [chunk["type"] for chunk in reader.chunks[-2:]] == ["text-end", "error"]
    assert "can be read again" in reader.chunks[-1]["errorText"]
    assert reader.is_done
