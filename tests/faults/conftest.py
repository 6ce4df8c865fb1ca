"""What the fault tests share: dice with a printed seed, figures shown at the end, brokers of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import http, serve
from tests.support.figures import Counters
from tests.support.scene import Valkey

__all__ = ["http", "serve"]  # fixtures of the end-to-end tests, used here too

_all_figures: list[Counters] = []

StartValkey = Callable[..., Valkey]


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Counters:
    """Where a test notes what it measured."""
    noted = Counters(request.node.name.removeprefix("test_"))
    _all_figures.append(noted)
    return noted


@pytest.fixture
def chance(figures: Counters) -> random.Random:
    """Dice. FAULTS_SEED gives the seed; the test prints it."""
    seed = int(os.environ.get("FAULTS_SEED") or random.randrange(10**6))
    print(f"FAULTS_SEED={seed}")
    figures.note(seed=seed)
    return random.Random(seed)


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[StartValkey]:
    """Starts a server of the test's own, which keeps its data; further configuration by keyword."""
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
    """A server of the test's own, which keeps every write on disk."""
    return start_valkey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows all figures together: the source of the table in docs/delivery.md."""
    if _all_figures:
        terminalreporter.section("faults")
        for figures in _all_figures:
            terminalreporter.line(str(figures))
