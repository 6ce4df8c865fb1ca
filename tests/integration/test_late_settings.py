"""Settings that an app sets after it has registered the blueprint: they count, or the log says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.config import Config

from flask_sse_push import ConfigError, SSEBlueprint
from flask_sse_push.testing import SSEClient, in_memory, read_events

ORIGIN = "https://shop.example"


def make_app(**options: Any) -> tuple[Flask, SSEBlueprint]:
    """Returns an app with its blueprint, before the app has set any setting."""
    app, sse = Flask(__name__), SSEBlueprint("sse")
    app.secret_key = "test"
    app.register_blueprint(sse, **options)
    return app, sse


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- set before the first use -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["REDIS_URL", "SSE_REDIS_URL", "SSE_PUSH_BROKER_URL"])
def test_the_broker_that_is_set_late_gets_the_events(key: str, empty_valkey: str) -> None:
    app, sse = make_app()
    app.config[key] = empty_valkey
    other = Flask("other")
    other.config["SSE_PUSH_BROKER_URL"] = empty_valkey
    other.register_blueprint(sse)
    with app.app_context():
        sse.publish("hello")
        sse.services.close()
    assert [
        event.data for event in read_events(other.test_client().get("/stream?last=1", buffered=False), 1)
    ] == ["hello"]
    with other.app_context():
        sse.services.close()


def set_by_key(app: Flask) -> None:
    app.config["SSE_PUSH_PUBLIC_CHANNELS"] = "a"


def set_from_mapping(app: Flask) -> None:
    app.config.from_mapping(SSE_PUSH_PUBLIC_CHANNELS="a")


def set_from_object(app: Flask) -> None:
    app.config.from_object(type("Production", (), {"SSE_PUSH_PUBLIC_CHANNELS": "a"}))


@pytest.mark.parametrize("change", [set_by_key, set_from_mapping, set_from_object])
def test_each_way_to_set_a_setting_late_works(change: Callable[[Flask], None]) -> None:
    app, _ = make_app()
    change(app)
    with in_memory(app), SSEClient(app) as client:
        assert client.open("a").opening["channels"] == ["a"]


def test_an_environment_variable_that_is_set_late_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sse = make_app()
    monkeypatch.setenv("SSE_PUSH_MAX_CHANNELS", "7")
    with app.app_context():
        assert sse.services.settings.max_channels == 7


def test_origins_that_are_set_late_may_read_streams_and_static_files() -> None:
    app, _ = make_app()
    app.config["SSE_PUSH_CORS_ORIGINS"] = [ORIGIN]
    client = app.test_client()
    preflight = client.options("/stream", headers={"Origin": ORIGIN})
    with client.get("/stream/client/push-client.js", headers={"Origin": ORIGIN}) as script:
        for response in (preflight, script):
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_a_prefix_that_is_set_too_late_is_an_error() -> None:
    app, sse = make_app()
    app.config["SSE_PUSH_URL_PREFIX"] = "/push"
    expected = "SSE_PUSH_URL_PREFIX is '/push', but must be set before the blueprint is registered"
    with app.app_context(), pytest.raises(ConfigError, match=expected):
        sse.publish("hello")
    app, sse = make_app(url_prefix="/own")  # the app does not use the setting
    app.config["SSE_PUSH_URL_PREFIX"] = "/push"
    with app.app_context():
        sse.publish("hello")


def test_a_wrong_value_is_an_error_at_once_and_also_late(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sse = make_app()
    app.config["SSE_PUSH_RETRY"] = "soon"
    with app.app_context(), pytest.raises(ConfigError, match="SSE_PUSH_RETRY is 'soon'"):
        sse.publish("hello")
    with pytest.raises(ConfigError, match="SSE_PUSH_RETRY is 'soon'"):
        app.register_blueprint(SSEBlueprint("other"), url_prefix="/other")
    assert app.test_client().get("/stream").status_code == 500
    monkeypatch.setenv("SSE_PUSH_RETYR", "3")
    expected = r"no setting SSE_PUSH_RETYR, which the environment has; did you mean SSE_PUSH_RETRY\?"
    with pytest.raises(ConfigError, match=expected):
        make_app()


def test_each_app_reads_its_own_settings() -> None:
    sse = SSEBlueprint("sse")
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        app.register_blueprint(sse)
    for number, app in enumerate(apps, 3):
        app.config["SSE_PUSH_MAX_CHANNELS"] = number
    for number, app in enumerate(apps, 3):
        with app.app_context():
            assert sse.services.settings.max_channels == number


# -- changed after the first use ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.__setitem__("SSE_PUSH_MAX_CHANNELS", 3),
        lambda config: config.update(SSE_PUSH_MAX_CHANNELS=3),
        lambda config: config.update({"SSE_PUSH_MAX_CHANNELS": 3}),
        lambda config: config.setdefault("SSE_PUSH_MAX_CHANNELS", 3),
        lambda config: config.from_mapping(SSE_PUSH_MAX_CHANNELS=3),
    ],
)
def test_a_change_after_the_first_use_is_told_once(
    change: Callable[[Config], None], caplog: pytest.LogCaptureFixture
) -> None:
    app, sse = make_app()
    with app.app_context():
        sse.publish("hello")
    change(app.config)
    change(app.config)
    (told,) = warnings(caplog)
    assert "SSE_PUSH_MAX_CHANNELS was changed after flask_sse_push had read the settings" in told
    assert "in_memory(app, max_channels=…)" in told
    app.config["SSE_PUSH_MAX_STREAMS"] = 3
    assert "SSE_PUSH_MAX_STREAMS was changed" in warnings(caplog)[-1]
    with app.app_context():
        assert sse.services.settings.max_channels == 50


def test_a_broker_url_of_flask_sse_that_comes_too_late_is_told(caplog: pytest.LogCaptureFixture) -> None:
    app, sse = make_app()
    with app.app_context():
        sse.publish("hello")
    app.config["REDIS_URL"] = "redis://localhost"
    assert "SSE_PUSH_BROKER_URL was changed" in warnings(caplog)[0]


def test_what_changes_no_setting_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    app, sse = make_app()
    app.config.update(SSE_PUSH_BROKER_URL="memory://", SSE_PUSH_MAX_CHANNELS=7)
    with app.app_context():
        sse.publish("hello")
    app.config.update(TESTING=True, SSE_PUSH_MAX_CHANNELS="7", REDIS_URL="redis://localhost")
    app.config["DEBUG"] = True
    assert warnings(caplog) == []


def test_a_test_gets_the_settings_of_the_moment(caplog: pytest.LogCaptureFixture) -> None:
    app, sse = make_app()
    for most in (3, 4):
        app.config["SSE_PUSH_MAX_CHANNELS"] = most
        with in_memory(app), app.app_context():
            assert sse.services.settings.max_channels == most
            sse.publish("hello")
    app.config["SSE_PUSH_MAX_CHANNELS"] = 5
    assert "SSE_PUSH_MAX_CHANNELS was changed" in warnings(caplog)[-1]


def test_a_config_with_a_class_of_the_apps_own_is_left_alone() -> None:
    class OwnConfig(Config):
        pass

    class OwnFlask(Flask):
        config_class = OwnConfig

    app, sse = OwnFlask(__name__), SSEBlueprint("sse")
    app.register_blueprint(sse)
    with app.app_context():
        sse.publish("hello")
    app.config["SSE_PUSH_MAX_CHANNELS"] = 3
    assert type(app.config) is OwnConfig
