"""What the models of both kinds need."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from flask_sse_push import history, hub
from flask_sse_push.brokers import memory
from flask_sse_push.history import (
    channel_cache,
    history_cache,
    link,
    read_queue,
    recovery,
    recovery_driver,
)
from flask_sse_push.hub import compression
from flask_sse_push.protocol import batch
from tests.support.simulation import CHUNK
from tests.support.stepping import CLOCK


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """Imports the modules of a package."""
    for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(each.name)


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation's clock, and small bounds."""
    for module in [memory, *modules_of(history), *modules_of(hub)]:
        if getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(recovery, "MAX_CHUNK", CHUNK)
    monkeypatch.setattr(recovery_driver, "MAX_FILLS", 2)
    monkeypatch.setattr(batch, "MAX_EVENTS", 3)
    monkeypatch.setattr(compression, "MAX_WINDOWS", 2)
    for module in (channel_cache, history_cache):
        monkeypatch.setattr(module, "SLACK", 2)
    for module in (read_queue, link):
        monkeypatch.setattr(module, "MAX_AT_ONCE", 2)
