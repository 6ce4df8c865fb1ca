"""The pytest plugin of flask_sse_push. pytest loads it automatically where flask_sse_push is installed.

pytest loads plugins before the `conftest.py` of an app. So this module lies outside the package, and imports
Flask and the package only when a test uses a fixture: a `conftest.py` may first let gevent patch the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from flask_sse_push.testing import FakeClock, SSEClient


@pytest.fixture
def sse_clock() -> FakeClock:
    """The clock for the heartbeats of `sse_app`. It stands still until the test calls `advance`."""
    from flask_sse_push.testing import FakeClock

    return FakeClock()


@pytest.fixture
def sse_app(request: pytest.FixtureRequest, sse_clock: FakeClock) -> Iterator[Flask]:
    """The app of your fixture `app`, on an in-memory broker that belongs to this test.

    Without a fixture `app`, it is an app with only `flask_sse_push.sse` under `/stream`.
    """
    from flask_sse_push.testing import in_memory

    with in_memory(_app(request), clock=sse_clock) as app:
        yield app


@pytest.fixture
def sse_client(sse_app: Flask) -> Iterator[SSEClient]:
    """Opens streams of `sse_app`. At the end of the test, it closes the streams that are still open."""
    from flask_sse_push.testing import SSEClient

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
    from flask import Flask

    from flask_sse_push import sse

    app = Flask("sse_app")
    app.register_blueprint(sse, url_prefix="/stream")
    return app
