"""Streams that are opened by POST: their parameters lie in the body, and all else is as for GET."""

from __future__ import annotations

import io
import json
import logging
import random
from contextlib import AbstractContextManager
from typing import Any

import pytest
from flask import Flask, Request, request, session
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect
from werkzeug.test import TestResponse

from flask_sse_push import SSEBlueprint
from flask_sse_push.testing import SSEClient
from flask_sse_push.web.body import IN_FORM, size_limit

from .conftest import MakeApp
from .test_blueprint import Reader, listening
from .test_policy import SHOP, refusal

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def posted(client: FlaskClient, path: str = "/stream", **options: Any) -> AbstractContextManager[Reader]:
    return listening(client, path, method="POST", **options)


def opened(client: FlaskClient, path: str = "/stream", **options: Any) -> list[str]:
    """Opens a stream by POST. Returns its channels."""
    with posted(client, path, **options) as reader:
        return list(json.loads(reader.next()["data"])["channels"])


def names(count: int, length: int = 200) -> list[str]:
    return [f"{n}:".ljust(length, "x") for n in range(count)]


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({}, ["sse"]),
        ({"json": {}}, ["sse"]),
        ({"json": {"channels": []}}, ["sse"]),
        ({"json": {"channels": None, "last": None}}, ["sse"]),
        ({"json": {"channels": ["a", "b", "a", ""]}}, ["a", "b"]),
        ({"json": {"channels": "a,b,,a"}}, ["a", "b"]),
        ({"json": {"channel": "a"}}, ["a"]),
        ({"json": {"channels": "a", "channel": ["b"]}}, ["a", "b"]),
        ({"json": {"channels": ["a"], "unknown": {"deep": [1]}, "__proto__": 1}}, ["a"]),
        ({"json": {"channels": ["a"]}, "path": "/stream?channels=b&channel=c"}, ["b", "a", "c"]),
        ({"json": {"channels": ["a"]}, "path": "/stream/"}, ["a"]),
        ({"path": "/stream?channels=b"}, ["b"]),
        ({"data": {"channels": "a,b"}}, ["a", "b"]),
        ({"data": "channels=a%2Cb&channel=c&channel=d&x", "content_type": FORM}, ["a", "b", "c", "d"]),
        ({"data": "", "content_type": FORM}, ["sse"]),
        ({"data": '{"channels": "a"}', "content_type": "application/json; charset=utf-8"}, ["a"]),
        ({"data": '{"channels": "a"}', "content_type": "application/vnd.api+json"}, ["a"]),
    ],
)
def test_the_channels_lie_in_the_body(
    make_app: MakeApp, options: dict[str, Any], channels: list[str]
) -> None:
    app, _ = make_app(public_channels="*")
    assert opened(app.test_client(), **options) == channels


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"last": 2}, "34"),
        ({"last": "2"}, "34"),
        ({"last_event_id": "earliest"}, "01234"),
        ({"lastEventId": "earliest", "last": 1}, "01234"),
    ],
)
def test_the_start_lies_in_the_body(
    make_app: MakeApp, parameters: dict[str, Any], expected: str, form: bool
) -> None:
    app, sse = make_app()
    with app.app_context():
        for n in range(5):
            sse.publish(str(n))
    body: dict[str, Any] = {"data" if form else "json": parameters}
    with posted(app.test_client(), **body) as reader:
        reader.next()
        assert "".join(reader.next()["data"] for _ in expected) == expected


def test_the_body_counts_before_the_query_and_the_header_before_both(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context():
        cursors = [sse.publish(str(n)) for n in range(5)]
    client = app.test_client()
    for name in ("last_event_id", "lastEventId"):
        with posted(client, f"/stream?last_event_id={cursors[0]}&last=9", json={name: cursors[2]}) as reader:
            reader.next()
            assert reader.next()["data"] == "3"
    body = {"last_event_id": cursors[0]}
    with posted(client, json=body, headers={"Last-Event-ID": cursors[3]}) as reader:
        reader.next()
        assert reader.next()["data"] == "4"


def test_tagged_and_batch_lie_in_the_body(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with app.app_context():
        sse.publish("x", channel="a")
    on: list[Any] = [True, 1, "1"]
    for tagged in on:
        with posted(app.test_client(), json={"channels": ["a"], "tagged": tagged, "last": 1}) as reader:
            reader.next()
            assert reader.next()["channel"] == "a"
    off: list[Any] = [False, 0, "0", None]
    for tagged in off:
        with posted(app.test_client(), json={"channels": ["a"], "tagged": tagged, "last": 1}) as reader:
            reader.next()
            assert "channel" not in reader.next()
    with posted(app.test_client(), json={"channels": ["a"], "batch": 100, "last": 1}) as reader:
        reader.next()
        assert reader.next()["event"] == "sse.batch"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"channels": 5}, "channels is 5, must be a list of names or text"),
        ({"channels": ["a", 5]}, 'channels is ["a", 5], must be a list of names or text'),
        ({"channels": {"a": 1}}, 'channels is {"a": 1}, must be a list of names or text'),
        ({"channel": True}, "channel is true, must be a list of names or text"),
        ({"channels": ["a,b"]}, "channel has the forbidden character U+002C at 1"),
        ({"channels": ["a\n"]}, "channel has the forbidden character U+000A at 1"),
        ({"channels": ["\ud800"]}, "channel has the forbidden character U+D800 at 0"),
        ({"last": 1.5}, "last is 1.5, must be a whole number"),
        ({"poll": 55.5}, "poll is '55.5', must be seconds from 0 to 55"),
        ({"poll": True}, "poll is true, must be a number"),
        ({"last": True}, "last is true, must be a whole number"),
        ({"last": -1}, "last is '-1', must be a number of events"),
        ({"last": "many"}, "last is 'many', must be a number of events"),
        ({"batch": [100]}, "batch is [100], must be a whole number"),
        ({"batch": 9999}, "batch is '9999', must be milliseconds from 0 to 5000"),
        ({"tagged": []}, "tagged is [], must be true or false"),
        ({"last_event_id": 7}, "last_event_id is 7, must be text"),
        ({"lastEventId": ["e-1"]}, 'lastEventId is ["e-1"], must be text'),
        ({"ticket": {"a": 1}}, 'ticket is {"a": 1}, must be text'),
        ("sse", "the body must be a JSON object"),
        ([], "the body must be a JSON object"),
        (None, "the body must be a JSON object"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_parameter(
    make_app: MakeApp, body: Any, message: str
) -> None:
    app, _ = make_app(public_channels="*")
    answer = app.test_client().post("/stream", data=json.dumps(body), content_type="application/json")
    assert refusal(answer) == (400, 1301)
    assert answer.json is not None
    assert answer.json["message"].startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is not valid JSON"),
        (b"{", "the body is not valid JSON"),
        (b"\xff", "the body is not valid JSON"),
        (b"[" * 50_000, "the body is not valid JSON"),
        (b'{"last": ' + b"9" * 20_000 + b"}", "the body is not valid JSON"),
        (b'{"channels": "a", "channels": "b"}', "the body gives 'channels' more than once"),
        (b'{"x": {"y": 1, "y": 2}}', "the body gives 'y' more than once"),
    ],
)
def test_a_body_that_is_no_json_is_refused(make_app: MakeApp, data: bytes, message: str) -> None:
    app, _ = make_app()
    answer = app.test_client().post("/stream", data=data, content_type="application/json")
    assert refusal(answer) == (400, 1301)
    assert answer.json is not None
    assert answer.json["message"] == message


@pytest.mark.parametrize(
    "type", [None, "text/plain", "multipart/form-data; boundary=x", "application/xml", "x"]
)
def test_a_body_of_another_type_is_refused_with_the_types_that_are_read(
    make_app: MakeApp, type: str | None
) -> None:
    app, _ = make_app()
    answer = app.test_client().post("/stream", data=b'{"channels": "a"}', content_type=type)
    assert refusal(answer) == (415, 1301)
    assert answer.json is not None
    assert "application/json" in answer.json["message"]
    assert FORM in answer.json["message"]


def chunked(
    client: FlaskClient, data: bytes, type: str = "application/json", terminated: bool = True
) -> TestResponse:
    """Sends a body without a length, as gunicorn hands on a chunked body."""
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": terminated}
    return client.post(
        "/stream", input_stream=io.BytesIO(data), content_type=type, environ_overrides=environ, buffered=False
    )


@pytest.mark.parametrize("most", [1, 50, 1000])
def test_a_stream_may_have_as_many_long_channels_as_the_setting_allows(make_app: MakeApp, most: int) -> None:
    app, _ = make_app(public_channels="*", max_channels=most)
    wanted = [name.replace("x", ":") for name in names(most)]  # a form writes each colon as three bytes
    assert (
        opened(app.test_client(), data=json.dumps({"channels": wanted}, indent=4), content_type=JSON)
        == wanted
    )
    assert opened(app.test_client(), data={"channels": ",".join(wanted)}) == wanted
    assert opened(app.test_client(), data={"channel": wanted}) == wanted
    answer = app.test_client().post("/stream", json={"channels": names(most + 1)})
    assert refusal(answer) == (400, 1301)
    assert answer.json is not None
    assert f"names {most + 1} channels, at most {most} are allowed" in answer.json["message"]


@pytest.mark.parametrize("type", ["application/json", FORM])
def test_a_body_that_is_too_large_is_refused(make_app: MakeApp, type: str) -> None:
    app, _ = make_app(max_channels=2)
    fits = b'{"x": "' + b"y" * (size_limit(2, IN_FORM) - 9) + b'"}'
    for grow, status in ((0, 200), (1, 413), (10**6, 413)):
        data = fits + b" " * grow
        for answer in (
            app.test_client().post("/stream", data=data, content_type=type, buffered=False),
            chunked(app.test_client(), data, type),
        ):
            assert answer.status_code == status
            if status == 413:
                assert refusal(answer) == (413, 1301)
            answer.close()


def test_an_app_may_allow_less(make_app: MakeApp) -> None:
    app, _ = make_app()
    app.config["MAX_CONTENT_LENGTH"] = 30
    data = json.dumps({"channels": names(2)}).encode()
    for answer in (
        app.test_client().post("/stream", data=data, content_type="application/json"),
        chunked(app.test_client(), data),
    ):
        assert refusal(answer) in ((413, 1301), (400, 1301))
    assert opened(app.test_client(), json={"channels": "sse"}) == ["sse"]


def test_a_server_that_cannot_read_chunked_bodies_refuses_them(make_app: MakeApp) -> None:
    app, _ = make_app()
    assert refusal(chunked(app.test_client(), b"{}", terminated=False)) == (411, 1301)


@pytest.mark.parametrize("form", [False, True])
def test_a_ticket_lies_in_the_body_and_is_hidden_from_the_apps_own_functions(
    make_app: MakeApp, form: bool
) -> None:
    app, sse = make_app()
    seen: list[str] = []

    @app.before_request
    def before() -> None:
        seen.append(request.get_data(as_text=True) + str(request.form.to_dict()) + str(request.args))

    @app.after_request
    def after(response: Any) -> Any:
        seen.append(request.get_data(as_text=True) + request.full_path)
        return response

    with app.test_request_context():
        ticket = sse.ticket("ada", ["user:ada"])
    body: dict[str, Any] = {"data" if form else "json": {"ticket": ticket}}
    assert opened(app.test_client(), **body) == ["user:ada"]
    assert len(seen) == 2
    assert not [text for text in seen if ticket in text]
    assert "***" in seen[0]
    assert refusal(app.test_client().post("/stream", **body)) == (401, 1102)


def test_a_ticket_may_name_as_many_long_channels_as_the_setting_allows(make_app: MakeApp) -> None:
    for most in (50, 1000):
        app, sse = make_app(max_channels=most, public_channels="*")
        chance = random.Random(1)
        wanted = [
            "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789:", k=200)) for _ in range(most)
        ]
        with app.test_request_context():
            ticket = sse.ticket("ada", wanted)
        assert opened(app.test_client(), json={"ticket": ticket}) == wanted
        answer = app.test_client().post("/stream", json={"ticket": "x" * (size_limit(most, IN_FORM) - 100)})
        assert refusal(answer) == (401, 1102)


def test_a_hook_that_has_read_the_form_before_does_no_harm(make_app: MakeApp) -> None:
    app, _ = make_app(public_channels="*")

    @app.url_value_preprocessor
    def read(endpoint: str | None, values: Any) -> None:
        assert request.form["channels"] == "a,b"

    assert opened(app.test_client(), data={"channels": "a,b"}) == ["a", "b"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("permanent", [False, True])
def test_a_stream_does_not_set_the_cookie_of_a_session_that_it_has_not_changed(
    make_app: MakeApp, method: str, permanent: bool
) -> None:
    app, sse = make_app()

    @app.get("/sign-in")
    def sign_in() -> str:
        session["user"], session.permanent = "ada", permanent
        return ""

    @sse.identify
    def count(request: Request) -> None:
        if "count" in request.args:
            session["count"] = 1

    client = app.test_client()
    client.get("/sign-in")
    for path, sets in (("/stream", False), ("/stream?count", True), ("/stream", False)):
        answer = client.open(path, method=method, buffered=False)
        assert ("Set-Cookie" in answer.headers) == sets
        answer.close()


def test_the_refusals_are_those_of_get(make_app: MakeApp) -> None:
    app, sse = make_app(max_streams=1, cors_origins=[SHOP])
    client = app.test_client()
    assert refusal(client.post("/stream", json={"channels": "secret"})) == (403, 1201)
    sse.identify(lambda request: None)
    assert refusal(client.post("/stream", json={"channels": "secret"})) == (401, 1101)
    assert refusal(client.post("/stream", json={"ticket": "no"})) == (401, 1102)
    foreign = {"Origin": "https://evil.example"}
    assert refusal(client.post("/stream", json={}, headers=foreign)) == (403, 1201)
    assert refusal(client.post("/stream", data={}, headers=foreign)) == (403, 1201)
    with posted(client) as reader:
        reader.next()
        assert refusal(client.post("/stream")) == (503, 1203)


def test_an_attempt_with_a_bad_body_counts_for_its_address(make_app: MakeApp) -> None:
    app, _ = make_app(rate_per_address="2/hour")
    client = app.test_client()
    statuses = [
        client.post("/stream", data="{", content_type="application/json").status_code for _ in range(3)
    ]
    assert statuses == [400, 400, 429]


def test_a_page_of_a_listed_origin_may_post(make_app: MakeApp) -> None:
    app, _ = make_app(cors_origins=[SHOP])
    client = app.test_client()
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = client.options("/stream", headers={"Origin": SHOP, **ask})
    assert allowed.status_code == 200
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in allowed.headers["Access-Control-Allow-Headers"]
    with posted(client, json={}, headers={"Origin": SHOP}) as reader:
        assert reader.response.headers["Access-Control-Allow-Origin"] == SHOP
        assert reader.response.headers["Access-Control-Allow-Credentials"] == "true"


def test_an_exempt_blueprint_needs_no_csrf_token() -> None:
    app, sse = Flask(__name__), SSEBlueprint("sse")
    app.secret_key = "test"
    csrf = CSRFProtect(app)
    app.register_blueprint(sse, url_prefix="/stream")
    try:
        client = app.test_client()
        assert client.post("/stream", json={}).status_code == 400
        csrf.exempt(sse)
        assert opened(client, json={}) == ["sse"]
        assert refusal(client.post("/stream", json={}, headers={"Origin": "https://evil.example"})) == (
            403,
            1201,
        )
    finally:
        with app.app_context():
            sse.services.close()


def test_a_stream_joins_as_many_long_channels_as_the_setting_allows(make_app: MakeApp) -> None:
    for most in (50, 1000):
        app, _ = make_app(public_channels="*", max_channels=most)
        wanted = names(most)
        with SSEClient(app) as client:
            stream = client.open(method="POST", json={"channels": [wanted[0]]})
            path = f"/stream/{stream.opening['connection']}/channels"
            body = {"join": wanted[1:], "secret": stream.opening["secret"]}
            assert client.http.post(path, json=body).status_code == 202
            assert stream.next("sse.channels").json()["channels"] == wanted
            body = {"join": names(most, 199), "leave": wanted, "secret": stream.opening["secret"]}
            assert client.http.post(path, json=body).status_code == 202
            assert stream.next("sse.channels").json()["channels"] == names(most, 199)


def test_a_get_reads_no_body(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app(public_channels="*")
    with caplog.at_level(logging.WARNING):
        answer = app.test_client().get("/stream?channels=a", json={"channels": ["b"]}, buffered=False)
        assert json.loads(Reader(answer).next()["data"])["channels"] == ["a"]
        answer.close()
    assert caplog.records == []
