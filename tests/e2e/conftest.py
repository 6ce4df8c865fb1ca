"""Starts apps for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import Gunicorn, gunicorn

Serve = Callable[..., Gunicorn]


@pytest.fixture
def serve(empty_valkey: str, log: Path) -> Iterator[Serve]:
    """Starts gunicorn with an app on an empty Valkey. Takes more settings as keywords."""
    with ExitStack() as running:

        def start(app: str = "tests.apps.plain:app", *options: str, **settings: Any) -> Gunicorn:
            workers = settings.pop("workers", 1)
            worker_class = settings.pop("worker_class", "gevent")
            env = {"SSE_PUSH_BROKER_URL": empty_valkey}
            env |= {f"SSE_PUSH_{key.upper()}": str(value) for key, value in settings.items()}
            return running.enter_context(
                gunicorn(app, *options, env=env, workers=workers, worker_class=worker_class, log=log)
            )

        yield start


@pytest.fixture(params=["generator", "hijack"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test once for each transport."""
    monkeypatch.setenv("SSE_PUSH_TRANSPORT", request.param)
    return str(request.param)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """An HTTP client for pages and for publishing."""
    with httpx.Client(timeout=60, trust_env=False, verify=False) as client:
        yield client
