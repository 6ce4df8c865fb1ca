"""What the models of both kinds need."""

from __future__ import annotations

import pytest

from flask_sse_push import batching, fetcher, http_encoding, hub, reader, resume
from flask_sse_push.brokers import memory
from tests.support.simulation import PIECE
from tests.support.stepping import CLOCK


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation's clock, and small bounds."""
    for module in (memory, hub, reader, fetcher):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(resume, "MAX_PIECE", PIECE)
    monkeypatch.setattr(batching, "MAX_EVENTS", 3)
    monkeypatch.setattr(http_encoding, "MAX_WINDOWS", 2)
    for module in (fetcher, reader):
        monkeypatch.setattr(module, "MAX_AT_ONCE", 2)
