"""Makes apps with the memory broker, for Flask's test client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_sse_push import SSEBlueprint

MakeApp = Callable[..., tuple[Flask, SSEBlueprint]]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Makes an app with its own blueprint under /stream. Takes settings as keywords, without their prefix."""
    apps: list[tuple[Flask, SSEBlueprint]] = []

    def make(**settings: Any) -> tuple[Flask, SSEBlueprint]:
        app = Flask(__name__)
        app.secret_key = "test"
        app.config.update({f"SSE_PUSH_{key.upper()}": value for key, value in settings.items()})
        sse = SSEBlueprint("sse")
        app.register_blueprint(sse, url_prefix="/stream")
        apps.append((app, sse))
        return app, sse

    yield make
    for app, sse in apps:
        with app.app_context():
            sse.services.close()
            sse.services.close()
