"""The pytest plugin. pytest loads it automatically where this package is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from .. import sse
from .client import SSEClient
from .memory import FakeClock, in_memory


@pytest.fixture
def sse_clock() -> FakeClock:
    """The clock for the heartbeats of `sse_app`. It stands still until the test calls `advance`."""
    return FakeClock()


@pytest.fixture
def sse_app(request: pytest.FixtureRequest, sse_clock: FakeClock) -> Iterator[Flask]:
    """The app of your fixture `app`, on an in-memory broker that belongs to this test.

    Without a fixture `app`, it is an app with only `flask_sse_push.sse` under `/stream`.
    """
    with in_memory(_app(request), clock=sse_clock) as app:
        yield app


@pytest.fixture
def sse_client(sse_app: Flask) -> Iterator[SSEClient]:
    """Opens streams of `sse_app`. At the end of the test, it closes the streams that are still open."""
    with SSEClient(sse_app) as client:
        yield client


def _app(request: pytest.FixtureRequest) -> Flask:
    try:
        app: Flask = request.getfixturevalue("app")
    except pytest.FixtureLookupError as error:
        if error.argname != "app":
            raise
        return _bare_app()
    return app


def _bare_app() -> Flask:
    app = Flask("sse_app")
    app.register_blueprint(sse, url_prefix="/stream")
    return app
