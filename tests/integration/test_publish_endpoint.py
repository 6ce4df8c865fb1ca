"""POST <prefix>/publish and GET <prefix>/stats, over Flask's test client and the memory broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, Request
from flask.testing import FlaskClient

from flask_sse_push import SSEBlueprint

from .conftest import MakeApp
from .test_blueprint import listening


@pytest.fixture
def served(make_app: MakeApp) -> tuple[Flask, SSEBlueprint]:
    app, sse = make_app(public_channels="*", max_message=1000, cors_origins="https://other.example")

    @sse.identify
    def identify(request: Request) -> str | None:
        return request.headers.get("X-User")

    @sse.authorize_publish
    def may_publish(user: str | None, channel: str) -> bool:
        return user == "ann" and channel != "secret"

    @sse.authorize_admin
    def is_admin(user: str | None) -> bool:
        return user == "root"

    return app, sse


@pytest.fixture
def client(served: tuple[Flask, SSEBlueprint]) -> FlaskClient:
    return served[0].test_client()


ANN = {"X-User": "ann"}


def test_both_routes_are_off_until_the_app_allows_somebody(make_app: MakeApp) -> None:
    app, _ = make_app()
    assert app.test_client().post("/stream/publish", json={"event": "a", "data": 1}).status_code == 404
    assert app.test_client().get("/stream/stats").status_code == 404


def test_an_event_is_published_and_the_answer_counts_the_streams_of_its_channel(
    served: tuple[Flask, SSEBlueprint], client: FlaskClient
) -> None:
    app, _ = served
    with (
        listening(app.test_client(), "/stream?channels=news") as one,
        listening(app.test_client(), "/stream?channels=news", headers=ANN) as ann,
        listening(app.test_client(), "/stream?channels=other") as other,
    ):
        for reader in (one, ann, other):
            reader.next()
        body = {"event": "price", "data": {"eur": 5}, "channel": "news", "exclude": ["ann"]}
        answer = client.post("/stream/publish", json=body, headers=ANN)
        assert answer.status_code == 200
        assert answer.json is not None
        event = one.next()
        assert event == {"id": answer.json["cursor"], "event": "price", "data": '{"eur": 5}\t'}
        assert answer.json == {"cursor": event["id"], "channel": "news", "streams": 2}
        assert ann.next()["event"] == "sse.heartbeat"


def test_the_default_channel_and_text(client: FlaskClient) -> None:
    answer = client.post("/stream/publish", json={"event": "a", "data": "text"}, headers=ANN)
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["channel"] == "sse"
    assert answer.json["streams"] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"event": "a"}, 400),
        ({"data": 1}, 400),
        ({"event": None, "data": 1}, 400),
        ({}, 400),
        ({"event": "a", "data": 1, "id": "x"}, 400),
        ({"event": "sse.open", "data": 1}, 422),
        ({"event": "a\nb", "data": 1}, 422),
        ({"event": 5, "data": 1}, 422),
        ({"event": "", "data": 1}, 422),
        ({"event": "a", "data": 1, "channel": "!control"}, 422),
        ({"event": "a", "data": 1, "channel": ["a", "b"]}, 422),
        ({"event": "a", "data": 1, "channel": ""}, 422),
        ({"event": "a", "data": 1, "exclude": ["x"] * 101}, 422),
        ({"event": "a", "data": "\ud800"}, 422),
        ({"event": "a", "data": "x" * 1001}, 413),
        ({"event": "a", "data": "x" * 100_000}, 413),
        ({"event": "a", "data": 1, "channel": "secret"}, 403),
    ],
)
def test_which_bodies_are_refused(client: FlaskClient, body: dict[str, Any], status: int) -> None:
    answer = client.post(
        "/stream/publish", data=json.dumps(body), content_type="application/json", headers=ANN
    )
    assert answer.status_code == status, answer.json
    assert answer.json is not None
    assert set(answer.json) == {"code", "name", "message", "details", "retry", "timestamp"}
    assert answer.json["code"] == (1201 if status == 403 else 1301)


@pytest.mark.parametrize(
    ("number", "status", "place"),
    [
        ("NaN", 400, 'body["data"]["prices"][1] is NaN'),
        ("-Infinity", 400, 'body["data"]["prices"][1] is -Infinity'),
        ("1e999", 422, 'data["prices"][1] is Infinity'),
    ],
)
def test_a_number_that_json_does_not_have_is_refused_with_its_place(
    client: FlaskClient, number: str, status: int, place: str
) -> None:
    body = f'{{"event": "a", "data": {{"prices": [1, {number}]}}}}'
    answer = client.post("/stream/publish", data=body, content_type="application/json", headers=ANN)
    assert answer.status_code == status
    assert answer.json is not None
    assert f"{place}, which JSON does not have" in answer.json["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-User": "bob"}, 403),
        ({**ANN, "Origin": "https://evil.example"}, 403),
        ({**ANN, "Origin": "null"}, 403),
        ({**ANN, "Origin": "https://other.example"}, 200),
        ({**ANN, "Origin": "http://localhost"}, 200),
    ],
)
def test_which_senders_are_refused(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/stream/publish", json={"event": "a", "data": 1}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_of_a_foreign_page_can_send_is_refused(client: FlaskClient, kind: str) -> None:
    answer = client.post("/stream/publish", data=b'{"event": "a", "data": 1}', content_type=kind, headers=ANN)
    assert answer.status_code == 415


def test_stats_are_for_admins(served: tuple[Flask, SSEBlueprint], client: FlaskClient) -> None:
    app, _ = served
    assert client.get("/stream/stats").status_code == 401
    assert client.get("/stream/stats", headers=ANN).status_code == 403
    with listening(app.test_client(), "/stream?channels=news") as reader:
        reader.next()
        answer = client.get("/stream/stats", headers={"X-User": "root"})
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json is not None
        assert answer.json["streams"] == 1
        assert answer.json["workers"][0]["connected"] is True
        assert answer.json["workers"][0]["pid"] > 0


def test_connections_and_presence_in_a_view(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*", presence_channels="room:*", presence_grace=0)

    @sse.identify
    def identify(request: Request) -> str | None:
        return request.headers.get("X-User")

    headers = {**ANN, "User-Agent": "Browser/1 " + "x" * 500}
    with (
        app.app_context(),
        listening(app.test_client(), "/stream?channels=room:1", headers=headers) as reader,
    ):
        connection = json.loads(reader.next()["data"])["connection"]
        event = reader.next()
        assert event["event"] == "sse.presence"
        facts = json.loads(event["data"])
        assert facts == {"channel": "room:1", "join": ["ann"], "leave": [], "count": 1}
        assert sse.presence("room:1") == {"channel": "room:1", "count": 1, "users": ["ann"]}
        assert sse.presence("room:1", users=0)["users"] == []
        assert sse.presence("room:2") == {"channel": "room:2", "count": 0, "users": []}
        listed = sse.connections(user_id="ann")
        assert [stream["connection"] for stream in listed] == [connection]
        assert listed[0]["address"] == "127.0.0.1"
        assert listed[0]["user_agent"] == headers["User-Agent"][:300]
        assert listed[0]["channels"] == ["room:1"]
        assert sse.connections(channel="other") == []
