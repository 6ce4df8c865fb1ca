"""`sse.cursor()`: the stream of a page gets every event published since the page was rendered."""

from __future__ import annotations

import pytest
from flask import Flask, render_template_string
from flask.testing import FlaskClient

from flask_sse_push import InvalidEvent, SSEBlueprint
from tests.support.processes import free_port

from .conftest import MakeApp
from .test_blueprint import listening

TEMPLATE = "{% macro cursor() %}{{ sse.cursor('sse') }}{% endmacro %}{{ cursor() }}"


def add_page(app: Flask, sse: SSEBlueprint, *, published_meanwhile: str | None = None) -> None:
    @app.get("/page")
    def page() -> str:
        if published_meanwhile:  # after the view has read its state, before the template calls `cursor`
            sse.publish(published_meanwhile)
        return render_template_string(TEMPLATE)


def events_after(client: FlaskClient, cursor: str, count: int) -> list[tuple[str, str]]:
    with listening(client, f"/stream?last_event_id={cursor}") as stream:
        opening = stream.next()
        assert '"resumed":true' in opening["data"]
        return [
            (event.get("event", "message"), event["data"]) for event in (stream.next() for _ in range(count))
        ]


def test_an_event_published_after_the_page_was_made_arrives(make_app: MakeApp) -> None:
    app, sse = make_app()
    add_page(app, sse)
    with app.app_context():
        sse.publish("before")
    client = app.test_client()
    cursor = client.get("/page").text
    with app.app_context():
        sse.publish("between")
        sse.publish("after")
    assert events_after(client, cursor, 2) == [("message", "between"), ("message", "after")]


@pytest.mark.parametrize("streams_before", [False, True], ids=["new worker", "worker with streams"])
def test_an_event_published_while_the_page_was_made_arrives_too(
    make_app: MakeApp, streams_before: bool
) -> None:
    app, sse = make_app()
    add_page(app, sse, published_meanwhile="meanwhile")
    client = app.test_client()
    if streams_before:
        with listening(client, "/stream") as stream:
            stream.next()
    cursor = client.get("/page").text
    assert events_after(client, cursor, 1) == [("message", "meanwhile")]


def test_without_a_request_the_cursor_is_the_present_position(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context():
        sse.publish("before")
        cursor = sse.cursor("sse", "user:7")
        sse.publish("after")
    assert events_after(app.test_client(), cursor, 1) == [("message", "after")]


def test_an_invalid_channel_name_is_refused(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context(), pytest.raises(InvalidEvent, match="channel"):
        sse.cursor("no spaces")


def test_without_a_broker_the_page_still_comes_and_its_stream_gets_a_reset(make_app: MakeApp) -> None:
    app, sse = make_app(broker_url=f"redis://127.0.0.1:{free_port()}/0", publish_timeout=0.2)
    add_page(app, sse)
    cursor = app.test_client().get("/page").text
    working, _ = make_app()
    with listening(working.test_client(), f"/stream?last_event_id={cursor}") as stream:
        assert '"resumed":false' in stream.next()["data"]
        assert stream.next()["event"] == "sse.reset"


def test_a_template_variable_of_that_name_comes_first(make_app: MakeApp) -> None:
    app, _ = make_app()
    with app.test_request_context():
        assert render_template_string("{{ sse }}", sse="mine") == "mine"
