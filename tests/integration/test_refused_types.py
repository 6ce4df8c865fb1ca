"""Every way to publish refuses the same event types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_sse_push import InvalidEvent, MessageAnnouncer, SSEBlueprint
from flask_sse_push.testing import SSEClient, in_memory, published

TYPES = ["*", "a\x1b[2J", "\x07", "\x7f", "\x9b1m", "tab\t"]

#: For each way to publish, a function that publishes an event of a type.
WAYS: dict[str, Callable[[SSEBlueprint, str], Any]] = {
    "publish": lambda sse, type: sse.publish("x", type),
    "publish_many": lambda sse, type: sse.publish_many([{"data": "x", "type": type}]),
    "notify": lambda sse, type: sse.notify(type, "x"),
    "send_to_user": lambda sse, type: sse.send_to_user(7, "x", type),
    "broadcast": lambda sse, type: sse.broadcast("x", type),
    "an announcer": lambda sse, type: MessageAnnouncer.from_url("memory://").publish("x", type),
}


@pytest.fixture
def sse() -> SSEBlueprint:
    return SSEBlueprint("sse")


@pytest.fixture
def app(sse: SSEBlueprint) -> Any:
    app = Flask(__name__)
    app.secret_key = "x"
    sse.authorize_publish(lambda user, channel: True)
    app.register_blueprint(sse, url_prefix="/stream")
    app.add_url_rule("/run", "run", lambda: sse.stream([("*", 1)]))
    with in_memory(app), app.app_context():
        yield app


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("way", WAYS)
def test_a_type_that_no_page_may_get_is_refused(app: Flask, sse: SSEBlueprint, way: str, type: str) -> None:
    with pytest.raises(InvalidEvent, match=r"type: (is '\*', which means|has the forbidden character U\+)"):
        WAYS[way](sse, type)
    assert published(app) == []


@pytest.mark.parametrize("type", TYPES)
def test_a_batch_with_such_a_type_publishes_nothing(app: Flask, sse: SSEBlueprint, type: str) -> None:
    def publish() -> None:
        with sse.batch() as batch:
            batch.publish("good")
            batch.publish("x", type)

    with pytest.raises(InvalidEvent, match="type: "):
        publish()
    assert published(app) == []


@pytest.mark.parametrize("type", TYPES)
def test_a_page_cannot_publish_such_a_type(app: Flask, type: str) -> None:
    answer = app.test_client().post("/stream/publish", json={"event": type, "data": 1})
    assert answer.status_code == 422
    assert answer.json is not None
    assert "type: " in answer.json["message"]
    assert published(app) == []


def test_a_response_that_yields_such_a_type_fails(app: Flask) -> None:
    with SSEClient(app) as client:
        events = client.get("/run").rest()
    assert [event.type for event in events] == ["run.begin", "run.end"]
    assert events[1].json()["error"] == "InvalidEvent"
