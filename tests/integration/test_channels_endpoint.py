"""POST <prefix>/<connection>/channels, over Flask's test client and the memory broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, Request
from werkzeug.test import TestResponse

from flask_sse_push import SSEBlueprint

from .conftest import MakeApp
from .test_blueprint import listening


def make(make_app: MakeApp, **settings: Any) -> tuple[Flask, SSEBlueprint]:
    app, sse = make_app(public_channels="open,sse", **settings)

    @sse.identify
    def identify(request: Request) -> str | None:
        return request.headers.get("X-User")

    @sse.authorize
    def allowed(user: str | None, channel: str) -> bool:
        return channel == f"team:{user}"

    return app, sse


def post(app: Flask, opened: dict[str, Any], user: str | None = "ann", **body: Any) -> TestResponse:
    headers = {"X-User": user} if user else {}
    body.setdefault("secret", opened.get("secret"))
    path = f"/stream/{opened['connection']}/channels"
    return app.test_client().post(path, json=body, headers=headers)


@pytest.mark.parametrize("kind", ["user", "address"])
@pytest.mark.parametrize("change", [{"join": ["team:ann"]}, {"leave": ["open"]}], ids=["join", "leave"])
def test_changes_have_the_limits_of_attempts_to_connect_but_counts_of_their_own(
    make_app: MakeApp, kind: str, change: dict[str, Any]
) -> None:
    app, _ = make(make_app, **{f"rate_per_{kind}": "3/hour"})
    client, headers = app.test_client(), {"X-User": "ann"}
    with listening(client, "/stream?channels=open", headers=headers) as reader:
        opened = json.loads(reader.next()["data"])
        statuses = [post(app, opened, **change).status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 429, 429]
        refused = post(app, opened, **change)
        assert refused.json is not None
        assert (refused.json["code"], refused.json["details"]) == (1202, {"per": kind})
        assert f"too many attempts to join or leave channels by this {kind}" in refused.json["message"]
        assert int(refused.headers["Retry-After"]) >= 1
    for _ in range(2):
        with listening(client, "/stream?channels=open", headers=headers):
            pass
    assert client.get("/stream?channels=open", headers=headers).status_code == 429


def test_a_client_joins_and_leaves_by_the_secret_of_its_stream(make_app: MakeApp) -> None:
    app, sse = make(make_app)
    with listening(app.test_client(), "/stream?channels=open", headers={"X-User": "ann"}) as reader:
        opened = json.loads(reader.next()["data"])
        with app.app_context():
            cursor = sse.publish("seen", channel="team:ann")
            sse.publish("missed", channel="team:ann")
        answer = post(app, opened, join=["team:ann"], leave=["open"], since=cursor)
        assert answer.status_code == 202
        assert answer.json == {"connection": opened["connection"], "join": ["team:ann"], "leave": ["open"]}
        missed = reader.next()
        assert missed["event"] == "sse.missed"
        assert [event["data"] for event in json.loads(missed["data"])["events"]] == ["missed"]
        assert "id" not in missed
        changed = reader.next()
        assert changed["event"] == "sse.channels"
        assert json.loads(changed["data"])["channels"] == ["team:ann"]
        assert changed["id"]
        with app.app_context():
            sse.publish("not any more", channel="open")
            sse.publish("live", channel="team:ann")
        assert reader.next()["data"] == "live"


def test_a_view_can_change_channels_without_a_secret(make_app: MakeApp) -> None:
    app, sse = make(make_app)
    with listening(app.test_client(), "/stream?channels=open") as reader:
        connection = json.loads(reader.next()["data"])["connection"]
        with app.app_context():
            sse.join(connection, "room")
            assert json.loads(reader.next()["data"])["joined"] == ["room"]
            sse.leave(connection, ["room", "open"])
            assert json.loads(reader.next()["data"])["channels"] == []


@pytest.fixture
def opened(make_app: MakeApp) -> tuple[Flask, dict[str, Any]]:
    app, _ = make(make_app)
    with listening(app.test_client(), "/stream?channels=open", headers={"X-User": "ann"}) as reader:
        return app, json.loads(reader.next()["data"])


@pytest.mark.parametrize(
    ("user", "body", "status", "code"),
    [
        ("ann", {"join": ["team:bob"]}, 403, 1201),
        ("ann", {"join": ["open", "no:such"]}, 403, 1201),
        (None, {"join": ["team:ann"]}, 401, 1101),
        ("bob", {"join": ["team:bob"]}, 403, 1201),  # another user's stream
        (None, {"join": ["open"]}, 403, 1201),
        ("ann", {"join": ["open"], "secret": "guess"}, 403, 1201),
        ("ann", {"join": ["open"], "secret": None}, 403, 1201),
        ("ann", {"join": ["open"], "secret": 5}, 403, 1201),
        ("ann", {}, 400, 1301),
        ("ann", {"join": []}, 400, 1301),
        ("ann", {"join": "open"}, 400, 1301),
        ("ann", {"join": [5]}, 400, 1301),
        ("ann", {"join": ["!control"]}, 400, 1301),
        ("ann", {"join": ["a\n"]}, 400, 1301),
        ("ann", {"leave": ["*"]}, 400, 1301),
        ("ann", {"join": ["open"] * 51}, 400, 1301),
        ("ann", {"join": ["open"], "since": "x" * 129}, 400, 1301),
        ("ann", {"join": ["open"], "since": ""}, 400, 1301),
        ("ann", {"join": ["open"], "since": 7}, 400, 1301),
        ("ann", {"join": ["open"], "last": -1}, 400, 1301),
        ("ann", {"join": ["open"], "last": True}, 400, 1301),
        ("ann", {"join": ["open"], "last": 1, "since": "x"}, 400, 1301),
        ("ann", {"join": ["open"], "more": 1}, 400, 1301),
    ],
)
def test_which_bodies_are_refused(
    opened: tuple[Flask, dict[str, Any]], user: str | None, body: dict[str, Any], status: int, code: int
) -> None:
    app, facts = opened
    answer = post(app, facts, user, **body)
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["code"] == code
    assert set(answer.json) == {"code", "name", "message", "details", "retry", "timestamp"}


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b'{"join": ["open"]}', "text/plain", 415),
        (b"join=open", "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 40_000, "application/json", 400),
        (b" " * 60_000, "application/json", 413),
    ],
)
def test_a_body_that_is_not_a_small_json_object_is_refused(
    opened: tuple[Flask, dict[str, Any]], data: bytes, content_type: str, status: int
) -> None:
    app, facts = opened
    path = f"/stream/{facts['connection']}/channels"
    answer = app.test_client().post(path, data=data, content_type=content_type)
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["code"] == 1301


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 202),
        ("http://localhost", 202),
        ("https://localhost", 202),  # a proxy took TLS off
        ("https://other.example", 202),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_pages_of_listed_origins_may_change_channels(
    make_app: MakeApp, origin: str | None, status: int
) -> None:
    app, _ = make(make_app, cors_origins="https://other.example")
    with listening(app.test_client(), "/stream?channels=open") as reader:
        facts = json.loads(reader.next()["data"])
        headers = {} if origin is None else {"Origin": origin}
        path = f"/stream/{facts['connection']}/channels"
        body = {"join": ["sse"], "secret": facts["secret"]}
        answer = app.test_client().post(path, json=body, headers=headers)
        assert answer.status_code == status


def test_without_a_secret_key_no_client_can_change_channels(make_app: MakeApp) -> None:
    app, _ = make(make_app)
    app.secret_key = None
    with listening(app.test_client(), "/stream?channels=open") as reader:
        facts = json.loads(reader.next()["data"])
        assert "secret" not in facts
        assert post(app, facts, None, join=["open"], secret="x").status_code == 403


def test_a_secret_stays_valid_while_its_key_is_a_fallback(opened: tuple[Flask, dict[str, Any]]) -> None:
    app, facts = opened
    app.config["SECRET_KEY_FALLBACKS"] = [app.secret_key]
    app.secret_key = "another"
    assert post(app, facts, join=["sse"]).status_code == 202
