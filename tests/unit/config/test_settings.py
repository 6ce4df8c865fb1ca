"""Settings: where values come from, what each key accepts, and the error for a wrong value."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from typing import Any

import pytest

from flask_sse_push.config import KEY_PREFIX, Settings
from flask_sse_push.errors import ConfigError

NAMES = [spec.name for spec in fields(Settings)]

WHOLE = {
    "history_size": (1, 100_000, "events"),
    "history_bytes": (0, 10**10, "bytes"),
    "max_message": (1, 100_000_000, "bytes"),
    "max_channels": (1, 1000, "channels"),
    "max_streams": (1, 1_000_000, "streams"),
    "max_streams_per_user": (0, 1_000_000, "streams"),
    "max_streams_per_address": (0, 1_000_000, "streams"),
    "max_buffer": (1000, 10**9, "bytes"),
    "replica_bytes": (1000, 10**10, "bytes"),
    "catch_up_bytes": (10_000, 10**11, "bytes"),
    "catch_up_page": (1000, 10**9, "bytes"),
    "wait_replicas": (0, 10, "replicas"),
    "shards": (1, 8, "shards"),
}
SECONDS = {
    "history_ttl": (1, 10**8),
    "write_timeout": (0.1, 3600),
    "heartbeat": (0.05, 3600),
    "retry": (0.01, 3600),
    "publish_timeout": (0.05, 600),
    "probe": (0.05, 600),
    "linger": (0, 3600),
    "coalesce": (0, 10),
    "drain": (0, 600),
    "recheck": (0.1, 86_400),
    "presence_grace": (0, 3600),
    "log_totals": (0, 86_400),
}
FLAGS = ("http_compression", "log_json")
RATES: tuple[list[str], list[Any]] = (
    ["", "1/second", "60/minute", "999999999/hour"],
    ["0/minute", "60", "60/day", "60 per minute", "-1/hour", "1/minute\n", 5],
)
TEXT: dict[str, tuple[list[str], list[Any]]] = {
    "transport": (["auto", "generator", "hijack"], ["", "Auto", "auto ", "auto\n", "socket", 5]),
    "broker_url": (
        [
            "memory://",
            "redis://localhost:6379/0",
            "rediss://u:p@h",
            "redis+sentinel://a,b/x",
            "unix:///run/x",
        ],
        ["", "localhost:6379", "://x", "Redis://x", "redis://a\nb", "redis://\ud800", 5, True],
    ),
    "rate_per_user": RATES,
    "rate_per_address": RATES,
    "prefix": (["sse", "a.b_c-D9", "x" * 64], ["", "a:b", "{x}", "a b", "x" * 65, "sse\n", 5]),
    "url_prefix": (
        ["/stream", "/a/b.c", "/ä"],
        ["", "/", "stream", "/a/", "//", "/a b", "/a\n", "/a?b", "/a#b", "/\ud800", 5],
    ),
}


def load(**values: Any) -> Settings:
    """Settings made from these fields alone."""
    return Settings.load({Settings.key(name): value for name, value in values.items()}, {})


def refusal(name: str, value: Any) -> ConfigError:
    """The error for a wrong value, which must name key, value and what was expected."""
    with pytest.raises(ConfigError) as caught:
        load(**{name: value})
    error = caught.value
    assert (error.key, error.value) == (Settings.key(name), value)
    assert str(error) == f"{error.key} is {value!r}, but must be {error.expected}"
    return error


# -- where values come from ---------------------------------------------------------------------------------


def test_without_any_value_the_defaults_hold() -> None:
    assert Settings.load({}, {}) == Settings()


def test_a_key_is_the_fields_name_with_the_prefix() -> None:
    assert Settings.key("max_streams") == "SSE_PUSH_MAX_STREAMS"
    assert KEY_PREFIX == "SSE_PUSH_"


def test_the_config_goes_before_the_environment() -> None:
    config = {"SSE_PUSH_RETRY": 5, "DEBUG": True}
    environ = {"SSE_PUSH_RETRY": "7", "SSE_PUSH_DRAIN": "3", "PATH": "/bin"}
    settings = Settings.load(config, environ)
    assert (settings.retry, settings.drain) == (5.0, 3.0)


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_HISTORY_SIZE", "42")
    assert Settings.load({}).history_size == 42


@pytest.mark.parametrize(
    ("config", "environ", "url"),
    [
        ({}, {}, "memory://"),
        ({}, {"REDIS_URL": "redis://d"}, "redis://d"),
        ({"REDIS_URL": "redis://c"}, {"REDIS_URL": "redis://d"}, "redis://c"),
        ({"SSE_REDIS_URL": "redis://s", "REDIS_URL": "redis://c"}, {}, "redis://s"),
        ({"REDIS_URL": "redis://c"}, {"SSE_REDIS_URL": "redis://s"}, "redis://s"),
        ({"SSE_REDIS_URL": None, "REDIS_URL": ""}, {"REDIS_URL": "redis://d"}, "redis://d"),
        ({"REDIS_URL": "redis://c"}, {"SSE_PUSH_BROKER_URL": "redis://b"}, "redis://b"),
        (
            {"SSE_PUSH_BROKER_URL": "redis://a", "REDIS_URL": "redis://c"},
            {"SSE_PUSH_BROKER_URL": "redis://b"},
            "redis://a",
        ),
    ],
)
def test_the_broker_url_falls_back_to_those_of_flask_sse(
    config: dict[str, str], environ: dict[str, str], url: str
) -> None:
    assert Settings.load(config, environ).broker_url == url


@pytest.mark.parametrize("name", NAMES)
def test_a_key_set_to_none_keeps_its_default(name: str) -> None:
    assert load(**{name: None}) == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().retry = 5  # type: ignore[misc]


def test_an_unknown_key_with_the_prefix_is_refused_with_the_known_ones() -> None:
    expected = r"^there is no setting SSE_PUSH_HISTROY_SIZE; did you mean SSE_PUSH_HISTORY_SIZE\? docs/"
    with pytest.raises(ConfigError, match=expected) as caught:
        Settings.load({"SSE_PUSH_HISTROY_SIZE": 5}, {})
    assert (caught.value.key, caught.value.value) == ("SSE_PUSH_HISTROY_SIZE", 5)
    for name in NAMES:
        assert Settings.key(name) in caught.value.expected


def test_an_unknown_key_in_the_environment_is_refused_too() -> None:
    expected = (
        r"^there is no setting SSE_PUSH_BROKER_URI, which the environment has; "
        r"did you mean SSE_PUSH_BROKER_URL\? docs/settings\.md lists all settings$"
    )
    with pytest.raises(ConfigError, match=expected):
        Settings.load({}, {"SSE_PUSH_BROKER_URI": "redis://b", "SSE_PUSHER": "other", "PATH": "/bin"})


def test_what_kubernetes_sets_for_a_service_with_the_same_name_is_no_setting() -> None:
    environ = {
        "SSE_PUSH_SERVICE_HOST": "10.0.0.1",
        "SSE_PUSH_SERVICE_PORT": "80",
        "SSE_PUSH_SERVICE_PORT_HTTP": "80",
        "SSE_PUSH_PORT": "tcp://10.0.0.1:80",
        "SSE_PUSH_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert Settings.load({}, environ) == Settings()


# -- what each key accepts ----------------------------------------------------------------------------------


def test_every_setting_is_tested_here() -> None:
    # test_cors, test_channels_setting, and below
    elsewhere = {"cors_origins", "batch_ms", "public_channels", "presence_channels", *FLAGS}
    elsewhere |= {"channels", "channels_file", "trace"}
    assert {*WHOLE, *SECONDS, *TEXT, *elsewhere} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_default_would_be_accepted(name: str) -> None:
    default = getattr(Settings(), name)
    settings = load(**{name: default})
    assert settings == Settings()
    assert type(getattr(settings, name)) is type(default)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_read_as_number_or_text(name: str) -> None:
    lowest, highest, _ = WHOLE[name]
    for value in (lowest, highest, str(lowest), str(highest)):
        assert getattr(load(**{name: value}), name) == int(value)


@pytest.mark.parametrize("name", WHOLE)
def test_anything_but_a_whole_number_in_range_is_refused(name: str) -> None:
    lowest, highest, unit = WHOLE[name]
    odd: list[Any] = ["", "x", "1e3", " 1", "-5", "1_0", "٣", 1.5, 1000.0, True, [], b"1000"]
    for value in [lowest - 1, highest + 1, -1, 10**16, *odd]:
        expected = f"a whole number of {unit} from {lowest} to {highest}"
        assert refusal(name, value).expected == expected


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_read_as_number_or_text(name: str) -> None:
    numbers: tuple[float, float] = SECONDS[name]
    for value in (*numbers, str(numbers[0]), str(numbers[1])):
        read = getattr(load(**{name: value}), name)
        assert read == float(value)
        assert isinstance(read, float)


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_may_be_a_timedelta(name: str) -> None:
    lowest, highest = SECONDS[name]
    for seconds in (lowest, highest):
        assert getattr(load(**{name: timedelta(seconds=seconds)}), name) == seconds
    refusal(name, timedelta(seconds=-1))
    refusal(name, timedelta(seconds=highest + 1))


@pytest.mark.parametrize("name", SECONDS)
def test_anything_but_seconds_in_range_is_refused(name: str) -> None:
    lowest, highest = SECONDS[name]
    odd: list[Any] = ["", "x", "5s", "1_0", "٣", b"5", "nan", "-inf", float("inf"), True, [], {}]
    for value in [lowest - 0.001, highest + 1, *odd]:
        assert refusal(name, value).expected == f"a number of seconds from {lowest:.15g} to {highest:.15g}"


def test_a_share_is_a_number_from_0_to_1() -> None:
    assert [load(trace=value).trace for value in (0, "0.01", 1)] == [0.0, 0.01, 1.0]
    for value in ("", "1 %", 1.01, -0.1, True):
        assert refusal("trace", value).expected == "a number from 0 to 1"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in TEXT for value in TEXT[name][0]])
def test_text_in_its_grammar_is_accepted(name: str, value: str) -> None:
    assert getattr(load(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in TEXT for value in TEXT[name][1]])
def test_text_outside_its_grammar_is_refused_with_an_example(name: str, value: Any) -> None:
    expected = {
        "transport": "auto, generator or hijack",
        "broker_url": "a URL such as redis://localhost:6379/0",
        "prefix": "1 to 64 of A-Z a-z 0-9 _ . -",
        "url_prefix": "a path such as /stream",
        "rate_per_user": "empty, or a number per second, minute or hour, such as 60/minute",
        "rate_per_address": "empty, or a number per second, minute or hour, such as 60/minute",
    }
    assert refusal(name, value).expected == expected[name]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", ()),
        ("news", ("news",)),
        (" news , user:*,,", ("news", "user:*")),
        (["a", "b"], ("a", "b")),
        (("a",), ("a",)),
        ({"a"}, ("a",)),
        (frozenset({"a"}), ("a",)),
        ([], ()),
    ],
)
def test_names_are_a_collection_or_one_string_with_commas(value: Any, names: tuple[str, ...]) -> None:
    assert load(public_channels=value).public_channels == names
    assert load(presence_channels=value).presence_channels == names


@pytest.mark.parametrize("value", [5, True, {"a": 1}, ["a", 5], b"a"])
def test_anything_but_a_list_of_names_is_refused(value: Any) -> None:
    assert refusal("public_channels", value).expected == "a list of names, or one string with commas"


@pytest.mark.parametrize(
    ("value", "waits"),
    [
        ("", ()),
        ("ticks:*=100", (("ticks:*", 100),)),
        (" ticks:* = 100, prices=0 ,,", (("ticks:*", 100), ("prices", 0))),
        ({}, ()),
        ({"ticks:*": timedelta(milliseconds=100)}, (("ticks:*", 100),)),
        ({"ticks:*": 100, "prices": "5000"}, (("ticks:*", 100), ("prices", 5000))),
    ],
)
def test_waits_are_a_mapping_or_one_string_with_commas(value: Any, waits: tuple[Any, ...]) -> None:
    assert load(batch_ms=value).batch_ms == waits


@pytest.mark.parametrize(
    "value",
    [
        "a=1_0",
        "a=٣",
        {"a": timedelta(seconds=6)},
        "ticks",
        "ticks=",
        "=100",
        "a=5001",
        "a=-1",
        "a=1.5",
        {"a": True},
        {"a": None},
        [("a",)],
        100,
        b"a=1",
    ],
)
def test_anything_but_milliseconds_by_pattern_is_refused(value: Any) -> None:
    expected = "milliseconds from 0 to 5000 for each channel pattern, such as {'ticks:*': 100}"
    assert refusal("batch_ms", value).expected == expected


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [True, "1", "true", "Yes", "on", 1])
def test_a_flag_is_set_by_a_word(name: str, value: Any) -> None:
    assert getattr(load(**{name: value}), name) is True


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [False, "0", "false", "No", "off", 0])
def test_a_flag_is_not_set_by_a_word(name: str, value: Any) -> None:
    assert getattr(load(**{name: value}), name) is False


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", ["", "maybe", 2, [], "gzip"])
def test_another_word_for_a_flag_is_refused(name: str, value: Any) -> None:
    assert refusal(name, value).expected == "true or false"


@pytest.mark.parametrize("name", ["public_channels", "presence_channels"])
@pytest.mark.parametrize("value", ["*", "sse,news,scores:*", "a[0-9]?,[!b]*,mail@x/y.z-_", [], ["room:?"]])
def test_patterns_of_channels_are_taken(name: str, value: Any) -> None:
    wanted = value.split(",") if isinstance(value, str) else value
    assert list(getattr(load(**{name: value}), name)) == wanted


@pytest.mark.parametrize("name", ["public_channels", "presence_channels"])
@pytest.mark.parametrize("wrong", ["breaking news", "Über", "a#b", "a[b", ""])
def test_a_name_that_no_channel_can_have_is_refused_and_named(name: str, wrong: str) -> None:
    assert refusal(name, ["sse", wrong]).expected.endswith(f"; no channel can match {wrong!r}")


def test_a_batch_needs_a_name_that_a_channel_can_have() -> None:
    assert "can match 'breaking news'" in refusal("batch_ms", "sse=5,breaking news=5").expected
