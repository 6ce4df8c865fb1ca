"""Fixtures of the fault tests: random numbers with a printed seed, measurements, and own brokers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import http, serve
from tests.support.fault_setup import Valkey
from tests.support.measurements import Measurements

__all__ = ["http", "serve"]  # fixtures of the end-to-end tests; the fault tests use them too

_all_measurements: list[Measurements] = []

StartValkey = Callable[..., Valkey]


@pytest.fixture
def measurements(request: pytest.FixtureRequest) -> Measurements:
    """The measurements of one test."""
    measured = Measurements(request.node.name.removeprefix("test_"))
    _all_measurements.append(measured)
    return measured


@pytest.fixture
def chance(measurements: Measurements) -> random.Random:
    """A source of random numbers. FAULTS_SEED sets its seed, which the test prints."""
    seed = int(os.environ.get("FAULTS_SEED") or random.randrange(10**6))
    print(f"FAULTS_SEED={seed}")
    measurements.note(seed=seed)
    return random.Random(seed)


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[StartValkey]:
    """Starts a server for one test. It keeps its data on disk. Takes more configuration as keywords."""
    started: list[Valkey] = []

    def start(**config: str) -> Valkey:
        folder = tmp_path / f"valkey-{len(started)}"
        folder.mkdir()
        started.append(Valkey(folder, **config))
        return started[-1]

    yield start
    for valkey in started:
        valkey.close()


@pytest.fixture
def valkey(start_valkey: StartValkey) -> Valkey:
    """A server for one test. It keeps every write on disk."""
    return start_valkey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the measurements of all tests. The table in docs/delivery.md comes from them."""
    if _all_measurements:
        terminalreporter.section("faults")
        for measurements in _all_measurements:
            terminalreporter.line(str(measurements))
