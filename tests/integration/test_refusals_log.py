"""A refused stream is a WARNING that says what to do: once for each channel and reason, without a flood."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask

from flask_sse_push import SSEBlueprint
from flask_sse_push.monitoring.refusals import MAX_KINDS

from .conftest import MakeApp


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and getattr(record, "event", "") == "refused"
    ]


def test_a_channel_without_a_rule_is_told_once_with_user_reason_and_remedy(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, _ = make_app()
    for _ in range(3):
        assert app.test_client().get("/stream?channels=news").status_code == 403
    assert told(caplog) == [
        "refused with 403, code 1201: listening to the channel 'news' is not allowed; to open a channel, "
        'name it in SSE_PUSH_PUBLIC_CHANNELS, set "public": True for it in SSE_PUSH_CHANNELS, or allow it in '
        "@sse.authorize (the request has no user; no setting makes it public, and the app has no "
        "@sse.authorize rule)"
    ]
    assert len(told(caplog, logging.INFO)) == 2
    app.test_client().get("/stream?channels=other")
    assert len(told(caplog)) == 2


def test_a_rule_that_refuses_is_named_with_the_user(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, sse = make_app()
    sse.identify(lambda request: request.args.get("as"))

    @sse.authorize
    def may_listen(user: str | None, channel: str) -> bool:
        return False

    client = app.test_client()
    assert client.get("/stream?channels=a&as=ada%0A").status_code == 403
    assert client.get("/stream?channels=a").status_code == 401
    (forbidden, unknown) = told(caplog)
    assert "(the user is 'ada\\n'; the @sse.authorize rule " in forbidden
    assert "may_listen returned False)" in forbidden
    assert "\n" not in forbidden
    assert "sign in" in unknown
    assert "the request has no user" in unknown
    assert "SSE_PUSH_PUBLIC_CHANNELS" in unknown


def test_a_channel_that_is_refused_in_a_join_is_told(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = make_app()
    joined = app.test_client().post("/stream/unknown/channels", json={"join": ["news"], "secret": "x"})
    assert joined.status_code == 403
    assert "'news' is not allowed" in told(caplog)[0]


def test_other_reasons_are_told_once_each(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app()
    client = app.test_client()
    for number in range(2):
        client.get("/stream", headers={"Origin": "https://other.example"})
        client.get("/stream", headers={"Origin": "https://third.example"})
        client.get(f"/stream?channels=a%20{number}")
        client.get(f"/stream?last={'x' * (number + 1)}%22%27")
    origin, third, name, last = told(caplog)
    assert "SSE_PUSH_CORS_ORIGINS" in origin
    assert "https://third.example" in third
    assert "last is" in last
    assert "forbidden character U+0020" in name


def test_every_refusal_is_told_in_debug_mode(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app()
    app.debug = True
    for _ in range(3):
        app.test_client().get("/stream?channels=news")
    assert len(told(caplog)) == 3


def test_clients_cannot_flood_the_log(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app()
    client = app.test_client()
    for number in range(MAX_KINDS + 20):
        client.get(f"/stream?channels=made-up-{number}")
    assert len(told(caplog)) == MAX_KINDS
    assert sum("new kinds are only logged at INFO" in line for line in caplog.messages) == 1
    longest = max(map(len, told(caplog)))
    caplog.clear()
    app, _ = make_app()
    app.test_client().get(f"/stream?channels={'x' * 200}")
    assert "SSE_PUSH_PUBLIC_CHANNELS" in told(caplog)[0]
    assert len(told(caplog)[0]) < longest + 200


def test_a_refusal_whose_reason_an_error_has_told_is_no_second_line(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flask_sse_push")
    app, _ = make_app()
    blocking = {"SERVER_SOFTWARE": "one/1", "wsgi.multithread": False}
    for _ in range(2):
        assert app.test_client().get("/stream", environ_overrides=blocking).status_code == 503
    (error,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "streams are refused: the server is one/1" in error
    assert told(caplog) == []
    assert len(told(caplog, logging.INFO)) == 2


MISSPELT = [
    ("?chanels=news", {}, "'chanels': did you mean 'channels'?"),
    ("?_=1&path=x&Channels[]=news", {}, "'Channels[]': did you mean 'channels'?"),
    ("?chanel=news", {}, "'chanel': did you mean 'channel'?"),
    ("?tikcet=x", {}, "'tikcet': did you mean 'ticket'?"),
    ("", {"json": {"chanels": ["news"]}}, "'chanels': did you mean 'channels'?"),
    ("", {"data": {"chanels": "news"}}, "'chanels': did you mean 'channels'?"),
]


@pytest.mark.parametrize(("query", "body", "hint"), MISSPELT)
def test_a_refused_request_without_channels_is_told_which_parameter_is_misspelt(
    make_app: MakeApp, query: str, body: dict[str, Any], hint: str
) -> None:
    app, _ = make_app(public_channels=())
    refused = app.test_client().open(f"/stream{query}", method="POST" if body else "GET", **body)
    assert refused.status_code == 403
    message: str = refused.get_json()["message"]
    assert message.endswith(f"; the request names no channel, but has {hint}")


@pytest.mark.parametrize(
    "query", ["", "?_=1&path=x&lang=de", "?channels=other&chanels=news", f"?{'chanels' * 9}=1"]
)
def test_other_refusals_have_no_hint(make_app: MakeApp, query: str) -> None:
    app, _ = make_app(public_channels=())
    assert "did you mean" not in app.test_client().get(f"/stream{query}").get_json()["message"]


@pytest.mark.parametrize(("query", "body", "hint"), MISSPELT)
def test_a_stream_of_the_default_channel_tells_once_which_parameter_is_misspelt(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, query: str, body: dict[str, Any], hint: str
) -> None:
    app, sse = make_app()
    for _ in range(2):
        with app.test_client().open(f"/stream{query}", method="POST" if body else "GET", **body) as answer:
            assert answer.status_code == 200
            next(iter(answer.response))
            assert [list(stream["channels"]) for stream in app_streams(app, sse)] == [["sse"]]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [f"a stream listens to the default channel: the request names no channel, but has {hint}"]


def app_streams(app: Flask, sse: SSEBlueprint) -> list[dict[str, Any]]:
    with app.app_context():
        return sse.connections()
