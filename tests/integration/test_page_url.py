"""`sse.url()`: the address of a stream with its channels and the page's cursor."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Blueprint, Flask, render_template_string

from flask_sse_push import InvalidEvent, SSEBlueprint

from .conftest import MakeApp
from .test_blueprint import listening


def make_site(name: str = "sse", **config: Any) -> tuple[Flask, SSEBlueprint]:
    app = Flask("site", subdomain_matching="SERVER_NAME" in config)
    app.config.update(config)
    return app, SSEBlueprint(name)


def page_at(app: Flask, path: str = "/", template: str = "{{ sse.url('a') }}", **request: Any) -> str:
    """Renders a template in a request for a path; returns the text."""
    with app.test_request_context(path, **request):
        app.preprocess_request()
        return render_template_string(template)


def parameters(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def test_a_page_misses_no_event_between_rendering_and_connecting(make_app: MakeApp) -> None:
    app, sse = make_app(public_channels="*")
    with app.test_request_context():
        url = render_template_string("<i data-url=\"{{ sse.url('orders', 'user/7@x.y:z') }}\">")
        sse.publish("between", channel="user/7@x.y:z")
    url = url.removeprefix('<i data-url="').removesuffix('">').replace("&amp;", "&")
    assert parameters(url)["channels"] == ["orders,user/7@x.y:z"]
    with listening(app.test_client(), url) as stream:
        assert '"resumed":true' in stream.next()["data"]
        assert stream.next()["data"] == "between"


def test_a_view_gets_the_same_address_as_its_template(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.test_request_context():
        urls = [sse.url("a", "b"), render_template_string("{{ sse.url('a', 'b')|safe }}"), sse.url()]
    assert [url.rpartition("=")[0] for url in urls] == [
        "/stream?channels=a,b&last_event_id",
        "/stream?channels=a,b&last_event_id",
        "/stream?last_event_id",
    ]


def test_after_a_reconnect_the_header_counts_and_not_the_address(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.test_request_context():
        url = sse.url("sse")
        first = sse.publish("first")
        sse.publish("second")
    with listening(app.test_client(), url, headers={"Last-Event-ID": first}) as stream:
        stream.next()
        assert stream.next()["data"] == "second"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"events": "plain"}, {"events": ["plain"]}),
        ({"tagged": True, "batch": 100, "poll": 5}, {"tagged": ["1"], "batch": ["100"], "poll": ["5"]}),
        ({"ticket": "a b&c"}, {"ticket": ["a b&c"]}),
        ({"events": None}, {}),
    ],
)
def test_options_become_parameters(
    make_app: MakeApp, options: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    app, sse = make_app()
    with app.test_request_context():
        found = parameters(sse.url("a", **options))
    assert len(found.pop("last_event_id")) == 1
    assert found == {"channels": ["a"], **expected}


@pytest.mark.parametrize("channels", [("a", "b"), (["a", "b"],), ("a", ("b", "a"))])
def test_channels_are_names_or_lists_of_names(make_app: MakeApp, channels: tuple[Any, ...]) -> None:
    app, sse = make_app()
    with app.test_request_context():
        assert parameters(sse.url(*channels))["channels"] == ["a,b"]


@pytest.mark.parametrize("start", [{"last": "10"}, {"last_event_id": "earliest"}])
def test_another_start_takes_the_place_of_the_cursor(make_app: MakeApp, start: dict[str, str]) -> None:
    app, sse = make_app()
    with app.test_request_context():
        assert parameters(sse.url("a", **start)) == {
            "channels": ["a"],
            **{key: [text] for key, text in start.items()},
        }


@pytest.mark.parametrize(
    ("channels", "options", "error", "said"),
    [
        (["no spaces"], {}, InvalidEvent, "channels[0]: has the forbidden character U+0020"),
        (["a", ["b", "no spaces"]], {}, InvalidEvent, "channels[1][1]: has the forbidden character U+0020"),
        (["a", None], {}, InvalidEvent, "channels[1]: is None, must be a name or several"),
        (["a"], {"event": "plain"}, TypeError, "no option 'event'; its options are batch, events, last,"),
        (["a"], {"events": "html"}, ValueError, "sse.url: events is 'html', must be one of plain,"),
        (["a"], {"last": "ten"}, ValueError, "sse.url: last is 'ten', must be a number"),
        (["a", "b", "c"], {}, ValueError, "names 3 channels, at most 2 are allowed"),
    ],
)
def test_a_stream_that_the_server_would_refuse_is_an_error_in_the_view(
    make_app: MakeApp, channels: list[Any], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    app, sse = make_app(max_channels=2)
    with app.test_request_context(), pytest.raises(error) as raised:
        sse.url(*channels, **options)
    assert said in str(raised.value)


def test_without_a_registration_the_error_says_what_to_do() -> None:
    app, sse = make_site()
    with app.test_request_context(), pytest.raises(RuntimeError, match="not registered on 'site'"):
        sse.url("a")


def test_variables_of_the_prefix_come_from_the_request_or_from_the_call() -> None:
    app, sse = make_site()
    app.register_blueprint(sse, url_prefix="/<lang>/stream")
    app.add_url_rule("/<lang>/page/<int:number>", "page", str)
    app.add_url_rule("/", "start", str)
    assert page_at(app, "/de/page/7").startswith("/de/stream?channels=a&amp;last_event_id=")
    other = "{{ sse.url('a', lang='f r') }}"
    assert page_at(app, "/de/page/7", other).startswith("/f%20r/stream?channels=a&amp;")
    assert page_at(app, "/", other).startswith("/f%20r/stream?channels=a&amp;")


def test_an_app_may_fill_in_the_variable_itself() -> None:
    app, sse = make_site()
    app.register_blueprint(sse, url_prefix="/<lang>/stream")
    app.url_defaults(lambda endpoint, values: values.setdefault("lang", "it"))
    assert page_at(app).startswith("/it/stream?")


def test_each_name_of_a_blueprint_has_its_own_address() -> None:
    app, sse = make_site("live")
    app.register_blueprint(sse, url_prefix="/one")
    app.register_blueprint(sse, url_prefix="/two", name="second")
    assert page_at(app, template="{{ live.url('a') }}").startswith("/one?channels=a")
    assert page_at(app, template="{{ second.url('a') }}").startswith("/two?channels=a")
    with app.test_request_context():
        assert sse.url("a").startswith("/one?channels=a")


def test_a_view_of_a_parent_gets_the_address_inside_the_parent() -> None:
    app, sse = make_site()
    app.register_blueprint(sse, url_prefix="/stream")
    for name in ("shop", "blog"):
        parent = Blueprint(name, name, url_prefix=f"/{name}")
        parent.register_blueprint(sse, url_prefix="/live")
        parent.add_url_rule("/", "show", str)
        app.register_blueprint(parent)
    app.add_url_rule("/", "start", str)
    addresses = [page_at(app, path) for path in ("/", "/shop/", "/blog/")]
    assert [url.partition("?")[0] for url in addresses] == ["/stream", "/shop/live", "/blog/live"]


def test_a_subdomain_and_a_path_of_the_server_are_in_the_address() -> None:
    app, sse = make_site(SERVER_NAME="site.example")
    app.register_blueprint(sse, url_prefix="/stream", subdomain="push")
    url = page_at(app, base_url="https://site.example/under")
    assert url.startswith("https://push.site.example/under/stream?channels=a")


def test_a_whole_address_is_possible(make_app: MakeApp) -> None:
    app, _ = make_app()
    url = page_at(app, template="{{ sse.url('a', _external=True) }}")
    assert url.startswith("http://localhost/stream?channels=a")
