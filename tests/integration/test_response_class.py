"""Streams of an app that has a `response_class` of its own."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response

from flask_sse_push import SSEBlueprint
from flask_sse_push.testing import read_events


class Shouting(Response):
    """A class of responses that cannot be made as Flask's class can, and that adds a header."""

    def __init__(self, *arguments: Any, audience: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        if "headers" in options:
            raise AssertionError("this class sets the headers itself")

    @property
    def is_shouting(self) -> bool:
        return True


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.response_class = Shouting
    app.config.update(SSE_PUSH_BROKER_URL="memory://")
    sse = SSEBlueprint()
    app.register_blueprint(sse, url_prefix="/stream")
    with app.app_context():
        sse.publish("hello")
    return app


def test_a_stream_is_an_instance_of_the_apps_class_and_keeps_its_guards(app: Flask) -> None:
    seen: list[Response] = []

    @app.after_request
    def measure(response: Response) -> Response:
        seen.append(response)
        response.headers["Content-Length"] = "17"
        return response

    answer = app.test_client().get("/stream?last=1", buffered=False)
    (event,) = read_events(answer, 1)
    assert event.data == "hello"
    assert "Content-Length" not in answer.headers
    (response,) = seen
    assert isinstance(response, Shouting)
    assert response.is_shouting


def test_a_hook_that_reads_the_body_is_told_that_it_is_a_stream(app: Flask) -> None:
    @app.after_request
    def log(response: Response) -> Response:
        with pytest.raises(RuntimeError, match="a stream of server-sent events"):
            response.get_data()
        return response

    (event,) = read_events(app.test_client().get("/stream?last=1", buffered=False), 1)
    assert event.data == "hello"
