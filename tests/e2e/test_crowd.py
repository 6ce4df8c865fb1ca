"""`benchmarks.crowd` on few streams: real workers, one of them killed, and a load generator that counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import crowd, selftest
from tests.support.processes import ROOT


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for the load generator. Another test run may be compiling in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUILD", str(folder))
        yield folder


def test_a_small_crowd_loses_and_doubles_no_event_when_a_worker_is_killed(
    build: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "benchmarks.crowd", "--streams", "300", "--events", "1"]
    done = subprocess.run(
        [*command, "--logs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert "events lost after the kill" in done.stdout, done.stderr  # the times may miss their goals here
    figures = json.loads((build / "crowd.json").read_text())
    assert figures["streams"] == 300
    assert figures["workers"] >= 2
    assert 0 < figures["killed_streams"] < 300
    assert (figures["lost"], figures["doubled"], figures["resets"]) == (0, 0, 0)
    assert figures["events_after_kill"] >= crowd.EVENTS_AFTER_KILL
    assert min(figures[name] for name in ("open_s", "event_s", "back_s", "idle_mb")) > 0


@pytest.mark.parametrize("name", ["no fault", "an event is lost", "an event is doubled in between"])
@pytest.mark.usefixtures("build")
def test_the_load_generator_sees_each_fault_on_each_stream(name: str) -> None:
    """`python -m benchmarks.selftest` tries all faults."""
    answers, faults = selftest.FAULTS[name]
    expected = {count: selftest.STREAMS * faults.get(count, 0) for count in selftest.COUNTED}
    assert selftest.count_faults(answers, expected) == {**expected, "wrong_ids": 0}
