"""The ways to register the blueprint on an app: each works, or fails at once and says what to type."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, Request, request

from flask_sse_push import SSEBlueprint
from flask_sse_push.testing import SSEClient, read_events

ORIGIN = "https://shop.example"


def make_app(**config: Any) -> Flask:
    app = Flask("site", subdomain_matching=bool(config.get("SERVER_NAME")))
    app.secret_key = "test" * 8
    app.config.update(SSE_PUSH_BROKER_URL="memory://", SSE_PUSH_PUBLIC_CHANNELS="*")
    app.config.update(SSE_PUSH_CORS_ORIGINS=[ORIGIN], **config)
    return app


def check_routes(app: Flask, sse: SSEBlueprint, prefix: str, base: str = "http://localhost") -> None:
    """Checks the stream, a join, the JavaScript client, CORS, and a ticket under a prefix."""
    client = app.test_client()
    with app.app_context():
        before, cursor = sse.publish("first"), sse.publish("hello")
    for path in (prefix, f"{prefix}/"):
        address = f"{path}?last_event_id={before}"
        (event,) = read_events(client.get(address, base_url=base, buffered=False), 1)
        assert (event.data, event.id) == ("hello", cursor)
    address = f"{prefix}/client/push-client.js"
    with client.get(address, base_url=base, headers={"Origin": ORIGIN}) as script:
        assert (script.status_code, script.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    with app.app_context():
        sse.authorize_admin(lambda user: True)
    assert client.get(f"{prefix}/stats", base_url=base).status_code == 200
    changed = client.post(f"{prefix}/unknown/channels", base_url=base, json={"join": ["a"]})
    assert changed.is_json  # a refusal of ours, not a missing route
    with app.app_context():
        ticket = sse.ticket("ada", ["sse"])
    seen: list[str] = []
    app.teardown_request_funcs.setdefault(None, []).append(lambda error: seen.append(request.url))
    address = f"{prefix}?ticket={ticket}&last_event_id={before}"
    assert read_events(client.get(address, base_url=base, buffered=False), 1)[0].data == "hello"
    assert seen
    assert all("ticket=***" in url for url in seen)


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({}, "/stream"),
        ({"url_prefix": ""}, "/stream"),
        ({"url_prefix": None}, "/stream"),
        ({"url_prefix": "/live"}, "/live"),
        ({"url_prefix": "/live/"}, "/live"),
        ({"url_prefix": "/live/events/"}, "/live/events"),
        ({"url_prefix": "/live", "name": "other"}, "/live"),
        ({"url_prefix": "/live", "url_defaults": {"lang": "en"}}, "/live"),
    ],
)
def test_a_prefix_may_be_left_out_or_end_with_a_slash(options: dict[str, Any], prefix: str) -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    app.add_url_rule("/", "home", lambda: "home")
    app.register_blueprint(sse, **options)
    check_routes(app, sse, prefix)
    assert app.test_client().get("/").text == "home"


def test_without_a_prefix_the_setting_decides() -> None:
    app, sse = make_app(SSE_PUSH_URL_PREFIX="/push"), SSEBlueprint("sse")
    app.register_blueprint(sse)
    check_routes(app, sse, "/push")


def test_the_prefix_of_the_constructor_counts() -> None:
    app, sse = make_app(), SSEBlueprint("sse", url_prefix="/live/")
    app.register_blueprint(sse)
    check_routes(app, sse, "/live")


def test_an_app_for_streams_alone_may_have_them_at_its_root() -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/")
    with app.test_client().get("/client/push-client.js") as script:
        assert script.status_code == 200
    with app.app_context():
        sse.publish("hello")
    assert read_events(app.test_client().get("/?last=1", buffered=False), 1)[0].data == "hello"


@pytest.mark.parametrize("prefix", ["/<lang>/stream", "/<lang>/stream/", "/<any(de, en):lang>/stream"])
def test_a_prefix_may_have_variables_which_hooks_find_in_the_request(prefix: str) -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix=prefix)
    languages: list[Any] = []

    @sse.identify
    def who(request: Request) -> str | None:
        languages.append((request.view_args or {}).get("lang"))
        return None

    check_routes(app, sse, "/de/stream")
    assert set(languages) == {"de"}


def test_a_hook_of_the_app_may_take_the_variable_out() -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/<lang>/stream")
    app.url_value_preprocessor(lambda endpoint, values: values.pop("lang", None) if values else None)
    check_routes(app, sse, "/de/stream")


def test_one_blueprint_may_be_registered_under_two_names() -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/one")
    app.register_blueprint(sse, url_prefix="/two", name="second")
    check_routes(app, sse, "/one")
    check_routes(app, sse, "/two")


@pytest.mark.parametrize(
    ("outer", "inner", "path"),
    [
        ("/shop", "/stream", "/shop/stream"),
        ("/shop", None, "/shop"),
        (None, "/stream", "/stream"),
        (None, None, "/stream"),
        ("/<tenant>", "/stream/", "/acme/stream"),
    ],
)
def test_the_blueprint_may_be_nested(outer: str | None, inner: str | None, path: str) -> None:
    app, parent, sse = make_app(), Blueprint("shop", "shop", url_prefix=outer), SSEBlueprint("sse")
    parent.register_blueprint(sse, url_prefix=inner)
    app.register_blueprint(parent)
    check_routes(app, sse, path)


def test_the_test_client_opens_streams_of_a_nested_blueprint() -> None:
    app, parent, sse = make_app(), Blueprint("shop", "shop", url_prefix="/shop"), SSEBlueprint("sse")
    parent.register_blueprint(sse, url_prefix="/stream")
    app.register_blueprint(parent)
    with SSEClient(app) as client, client.open("a") as stream, app.app_context():
        sse.publish("hello", channel="a")
        assert stream.next().data == "hello"


def test_the_blueprint_may_lie_on_a_subdomain() -> None:
    app, sse = make_app(SERVER_NAME="site.example"), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/stream", subdomain="push")
    check_routes(app, sse, "/stream", "http://push.site.example")
    assert app.test_client().get("/stream", base_url="http://site.example").status_code == 404


def test_the_app_may_lie_under_a_path_of_the_server() -> None:
    app, sse = make_app(APPLICATION_ROOT="/site"), SSEBlueprint("sse")
    app.register_blueprint(sse, url_prefix="/stream")
    check_routes(app, sse, "/stream", "http://localhost/site")


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("stream", "must begin with a slash: url_prefix='/stream'"),
        ("/<connection>/stream", "give the variable of the prefix another name"),
        ("/<path:filename>", "give the variable of the prefix another name"),
    ],
)
def test_a_prefix_that_cannot_work_is_refused(prefix: str, said: str) -> None:
    app = make_app()
    with pytest.raises(ValueError, match="sse: url_prefix is ") as refused:
        app.register_blueprint(SSEBlueprint("sse"), url_prefix=prefix)
    assert said in str(refused.value)
    assert not app.extensions.get("sse_push")


def test_an_app_with_host_matching_is_refused() -> None:
    app = Flask("site", host_matching=True, static_host="site.example")
    with pytest.raises(ValueError, match="subdomain_matching=True"):
        app.register_blueprint(SSEBlueprint("sse"), url_prefix="/stream")


def test_two_blueprints_need_two_names() -> None:
    app = make_app()
    app.register_blueprint(SSEBlueprint("sse"), url_prefix="/one")
    with pytest.raises(ValueError, match="Use 'name=' to provide a unique name"):
        app.register_blueprint(SSEBlueprint("sse"), url_prefix="/two")
    app.register_blueprint(SSEBlueprint("other"), url_prefix="/two")


def test_it_is_too_late_after_the_first_request() -> None:
    app = make_app()
    app.test_client().get("/")
    with pytest.raises(AssertionError, match="already handled its first request"):
        app.register_blueprint(SSEBlueprint("sse"), url_prefix="/stream")


def test_a_second_registration_says_that_one_is_enough() -> None:
    app, sse = make_app(), SSEBlueprint("sse")
    sse.init_app(app)
    text = r"already registered on 'site'. Register it once: with sse\.init_app"
    with pytest.raises(ValueError, match=text):
        sse.init_app(app)
    with pytest.raises(ValueError, match=text):
        app.register_blueprint(sse, url_prefix="/again")
    app.register_blueprint(sse, name="other", url_prefix="/other")
    check_routes(app, sse, "/other")
