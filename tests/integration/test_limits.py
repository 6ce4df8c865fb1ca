"""How many streams and attempts a user and an address may have, and when streams stop counting."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import request
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from tests.support.deadline import eventually, stretched, usual_time
from tests.support.proxy import Proxy

from .conftest import MakeApp
from .test_blueprint import Reader, listening


def make_client(make_app: MakeApp, **settings: Any) -> FlaskClient:
    app, sse = make_app(**settings)
    sse.identify(lambda request: request.args.get("as"))
    return app.test_client()


def refusal(answer: TestResponse) -> tuple[int, int]:
    assert answer.json is not None
    assert answer.json["retry"] is True
    assert 1 <= int(answer.headers["Retry-After"]) <= 5400
    return answer.status_code, answer.json["code"]


def open_stream(client: FlaskClient, path: str, held: ExitStack, **options: Any) -> Reader:
    reader = held.enter_context(listening(client, path, **options))
    assert reader.next()["event"] == "sse.open"
    return reader


BROKERS = pytest.mark.parametrize("broker", ["memory", "valkey"])


def url_of(broker: str, request: pytest.FixtureRequest) -> str:
    return "memory://" if broker == "memory" else str(request.getfixturevalue("empty_valkey"))


# -- streams ------------------------------------------------------------------------------------------------


@BROKERS
def test_the_streams_of_a_user_are_limited_over_all_workers(
    make_app: MakeApp, broker: str, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {"broker_url": url_of(broker, request), "max_streams_per_user": 5}
    one = make_client(make_app, **settings)
    two = one if broker == "memory" else make_client(make_app, **settings)
    with ExitStack() as held:
        for number in range(4):
            open_stream((one, two)[number % 2], "/stream?as=ada", held)
        with listening(one, "/stream?as=ada") as reader:
            reader.next()
            for client in (one, two):
                assert usual_time(partial(client.get, "/stream?as=ada")) < stretched(0.1)
                answer = client.get("/stream?as=ada")
                assert refusal(answer) == (429, 1202)
                assert answer.json is not None
                assert answer.json["details"] == {"per": "user"}
            open_stream(one, "/stream?as=bob", held)
            open_stream(one, "/stream", held)
        eventually(lambda: two.get("/stream?as=ada", buffered=False).status_code == 200)


def test_the_streams_of_an_address_are_limited_whoever_opens_them(make_app: MakeApp) -> None:
    client = make_client(make_app, max_streams_per_address=2)
    home, away = {"REMOTE_ADDR": "192.0.2.1"}, {"REMOTE_ADDR": "2001:db8::1"}
    with ExitStack() as held:
        open_stream(client, "/stream?as=ada", held, environ_base=home)
        open_stream(client, "/stream", held, environ_base=home)
        assert refusal(client.get("/stream?as=bob", environ_base=home)) == (429, 1202)
        open_stream(client, "/stream?as=bob", held, environ_base=away)
        open_stream(client, "/stream", held, environ_base=away)
        assert refusal(client.get("/stream", environ_base={"REMOTE_ADDR": "2001:db8::2"})) == (429, 1202)


def test_the_address_is_the_one_that_the_app_gives_the_request(make_app: MakeApp) -> None:
    """Both limits of an address go by `request.remote_addr`, which an app behind a proxy may set itself."""
    app, _ = make_app(max_streams_per_address=1)

    @app.before_request
    def take_from_proxy() -> None:
        request.remote_addr = request.headers["X-Real-IP"]

    client = app.test_client()
    with ExitStack() as held:
        open_stream(client, "/stream", held, headers={"X-Real-IP": "203.0.113.1"})
        open_stream(client, "/stream", held, headers={"X-Real-IP": "203.0.113.2"})
        assert refusal(client.get("/stream", headers={"X-Real-IP": "203.0.113.2"})) == (429, 1202)


def test_behind_a_proxy_the_address_is_the_one_from_proxyfix(make_app: MakeApp) -> None:
    client = make_client(make_app, max_streams_per_address=1)
    client.application.wsgi_app = ProxyFix(client.application.wsgi_app)  # type: ignore[method-assign]
    with ExitStack() as held:
        open_stream(client, "/stream", held, headers={"X-Forwarded-For": "192.0.2.1"})
        open_stream(client, "/stream", held, headers={"X-Forwarded-For": "192.0.2.2"})
        answer = client.get("/stream", headers={"X-Forwarded-For": "spoofed, 192.0.2.2"})
        assert refusal(answer) == (429, 1202)


def test_without_proxyfix_a_header_changes_nothing(make_app: MakeApp) -> None:
    client = make_client(make_app, max_streams_per_address=1)
    with ExitStack() as held:
        open_stream(client, "/stream", held, headers={"X-Forwarded-For": "192.0.2.1"})
        answer = client.get("/stream", headers={"X-Forwarded-For": "192.0.2.2"})
        assert refusal(answer) == (429, 1202)


def test_a_request_that_opens_no_stream_takes_no_place(make_app: MakeApp) -> None:
    client = make_client(make_app, max_streams_per_user=1)
    for _ in range(3):
        assert client.head("/stream?as=ada").status_code == 200
        client.get("/stream?as=ada", buffered=False).close()  # the server lost its client before the body
        assert client.get("/stream?as=ada&channels=secret").status_code == 403
        assert client.get("/stream?as=ada&last=x").status_code == 400
        assert client.get("/stream?as=ada&ticket=forged").status_code == 401
    with listening(client, "/stream?as=ada") as reader:
        assert reader.next()["event"] == "sse.open"


def test_a_stream_refused_for_its_ticket_does_not_count(make_app: MakeApp) -> None:
    client = make_client(make_app, max_streams_per_user=1)
    app = client.application
    sse = next(iter(app.extensions["sse_push"]))
    with app.app_context():
        ticket = sse.ticket("ada", "sse")
    client.get(f"/stream?ticket={ticket}", buffered=False).close()
    assert client.get(f"/stream?ticket={ticket}").status_code == 401
    with listening(client, "/stream?as=ada") as reader:
        assert reader.next()["event"] == "sse.open"


def test_without_the_broker_a_worker_counts_its_own_streams(make_app: MakeApp, empty_valkey: str) -> None:
    with Proxy(urlsplit(empty_valkey).port or 0) as proxy, ExitStack() as held:
        client = make_client(
            make_app,
            broker_url=f"redis://127.0.0.1:{proxy.port}",
            max_streams_per_user=2,
            rate_per_user="1000/minute",
            publish_timeout=0.2,
        )
        open_stream(client, "/stream?as=ada", held)
        proxy.requests.freeze()
        held.enter_context(listening(client, "/stream?as=ada"))
        assert refusal(client.get("/stream?as=ada")) == (429, 1202)
        assert usual_time(partial(client.get, "/stream?as=ada")) < stretched(0.1)


# -- attempts -----------------------------------------------------------------------------------------------


@BROKERS
@pytest.mark.parametrize("kind", ["user", "address"])
def test_attempts_are_counted_over_all_workers(
    make_app: MakeApp, broker: str, kind: str, request: pytest.FixtureRequest
) -> None:
    settings = {"broker_url": url_of(broker, request), f"rate_per_{kind}": "4/hour"}
    one = make_client(make_app, **settings)
    two = one if broker == "memory" else make_client(make_app, **settings)
    for number in range(4):
        client = (one, two)[number % 2]
        assert client.get("/stream?as=ada&last=x").status_code == 400  # a wrong attempt is one
    assert usual_time(partial(two.get, "/stream?as=ada")) < stretched(0.1)
    answer = two.get("/stream?as=ada")
    assert refusal(answer) == (429, 1202)
    other = {"REMOTE_ADDR": "192.0.2.9"}
    assert one.get("/stream?as=bob&last=x", environ_base=other).status_code == 400


def test_the_time_to_wait_differs_from_client_to_client(make_app: MakeApp) -> None:
    client = make_client(make_app, rate_per_address="1/hour")
    client.get("/stream?last=x")
    waits = {client.get("/stream").headers["Retry-After"] for _ in range(20)}
    assert len(waits) > 3


# -- the worker ---------------------------------------------------------------------------------------------


def test_a_full_worker_refuses_before_it_looks_up_the_user(make_app: MakeApp) -> None:
    app, sse = make_app(max_streams=1)
    calls: list[None] = []
    sse.identify(lambda request: calls.append(None))
    with listening(app.test_client(), "/stream"):
        assert len(calls) == 1
        answer = app.test_client().get("/stream")
        assert refusal(answer) == (503, 1203)
        assert len(calls) == 1
