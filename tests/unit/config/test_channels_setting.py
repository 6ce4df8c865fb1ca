"""SSE_PUSH_CHANNELS and its file: what they accept, and what the error about a wrong policy says."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.config.channel_policies import ChannelRule
from flask_sse_push.config.channels_setting import MAX_FILE
from flask_sse_push.errors import ConfigError, UnknownSetting, shown

KEY, FILE = "SSE_PUSH_CHANNELS", "SSE_PUSH_CHANNELS_FILE"
POLICIES = {
    "user:*": {"history": 50, "ttl": 86400},
    "ticks:*": {"history": 1, "batch_ms": 100, "public": True},
    "room:*": {"presence": True, "bytes": 10_000},
}
RULES = (
    ChannelRule("user:*", history=50, ttl=86400),
    ChannelRule("ticks:*", history=1, batch_ms=100, public=True),
    ChannelRule("room:*", presence=True, bytes=10_000),
)


def refusal(config: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config, environ or {})
    return str(caught.value)


def test_policies_come_from_the_config_from_json_or_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_text(json.dumps(POLICIES))
    assert Settings.load({KEY: POLICIES}, {}).channels == RULES
    assert Settings.load({}, {KEY: json.dumps(POLICIES)}).channels == RULES
    assert Settings.load({}, {FILE: str(path)}).channels == RULES
    assert Settings.load({FILE: str(path)}, {}).channels == RULES


@pytest.mark.parametrize("value", [None, {}, (), "", "  ", "{}"])
def test_policies_may_be_empty(value: Any) -> None:
    assert Settings.load({KEY: value}, {}).channels == ()


def test_a_key_of_a_policy_that_is_none_is_left_out() -> None:
    assert Settings.load({KEY: {"a": {"history": None}}}, {}).channels == (ChannelRule("a"),)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("history", 0, "a whole number of events from 1 to 100000"),
        ("history", True, "a whole number of events from 1 to 100000"),
        ("history", [], "a whole number of events from 1 to 100000"),
        ("ttl", 0.5, "a number of seconds from 1 to 100000000"),
        ("ttl", "1_0", "a number of seconds from 1 to 100000000"),
        ("history", "٣", "a whole number of events from 1 to 100000"),
        ("ttl", "1h", "a number of seconds from 1 to 100000000"),
        ("bytes", -1, "a whole number of bytes from 0 to 10000000000"),
        ("batch_ms", 5001, "a whole number of milliseconds from 0 to 5000"),
        ("public", "maybe", "true or false"),
        ("presence", 2, "true or false"),
    ],
)
def test_a_wrong_value_names_pattern_key_and_what_was_expected(name: str, value: Any, expected: str) -> None:
    assert refusal({KEY: {"a": {"history": 1}, "user:*": {name: value}}}) == (
        f"{KEY}: the policy of 'user:*' has {name!r}: {value!r}, which must be {expected}"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("histroy", "history"), ("history_size", "history"), ("history_ttl", "ttl"), ("TTL", "ttl"),
        ("batch", "batch_ms"), ("history_bytes", "bytes"), ("Public", "public"), ("presense", "presence"),
    ],
)  # fmt: skip
def test_an_unknown_key_of_a_policy_names_the_one_that_was_meant(name: str, meant: str) -> None:
    assert refusal({KEY: {"user:*": {name: 1}}}) == (
        f"{KEY}: the policy of 'user:*' has the key {name!r}, which must be "
        f"one of batch_ms, bytes, history, presence, public, ttl; did you mean {meant!r}?"
    )


def test_a_key_that_resembles_none_lists_them_all() -> None:
    assert refusal({KEY: {"a": {5: 1}}}).endswith("one of batch_ms, bytes, history, presence, public, ttl")


@pytest.mark.parametrize("value", [5, 0, True, False, ["user:*"], "[1]", "5", b"{}"])
def test_anything_but_a_mapping_is_refused(value: Any) -> None:
    assert "must be a mapping from channel patterns to policies" in refusal({KEY: value})


@pytest.mark.parametrize("policy", [50, None, "history=5", ["history"]])
def test_a_policy_that_is_no_mapping_is_refused_and_names_its_pattern(policy: Any) -> None:
    expected = (
        f"{KEY}: the policy of 'user:*' is {policy!r}, but must be a mapping such as {{\"history\": 50}}"
    )
    assert refusal({KEY: {"user:*": policy}}) == expected


NO_CHANNEL = (
    "must be the name of a channel (A-Z a-z 0-9 _ : . / @ -) or a pattern such as scores:*; "
    "no channel can match"
)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        *[
            (pattern, f"{NO_CHANNEL} {pattern!r}")
            for pattern in ("breaking news", "user *", "", "a[b", "[\ud800]", "[z-a]", "[*]", "\ud800", "٣:*")
        ],
        (5, "must be text, such as 'user:*'"),
        ("x" * 201, "must be a pattern of at most 200 characters, not 201"),
        ("*" * 201, "must be a pattern of at most 200 characters, not 201"),
        ("sse.admin", "must be another name: this channel belongs to the admin page, and only "),
    ],
)
def test_a_wrong_pattern_is_refused_and_named(pattern: Any, problem: str) -> None:
    found = refusal({KEY: {pattern: {"history": 5}}})
    found.encode()
    assert found.startswith(f"{KEY}: the pattern {shown(pattern)} {problem}")
    if isinstance(pattern, str):
        for key in ("SSE_PUSH_PUBLIC_CHANNELS", "SSE_PUSH_PRESENCE_CHANNELS", "SSE_PUSH_BATCH_MS"):
            value = {pattern: 5} if key == "SSE_PUSH_BATCH_MS" else [pattern]
            if pattern or key != "SSE_PUSH_BATCH_MS":
                assert f"names or patterns of channels: {shown(pattern)} {problem}" in refusal({key: value})


def test_patterns_may_be_as_long_as_names_and_match_more_than_the_admin_channel() -> None:
    for pattern in ("x" * 200, "x" * 199 + "*", "sse.*", "sse.admin*", "[!x]", "[!é]", "[ -~]"):
        assert Settings.load({KEY: {pattern: {"history": 5}}}, {}).channels[0].pattern == pattern


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    policies = {
        "user *": {"histroy": 5, "ttl": "1_0"}, "a": 5, "*": {}, "c": {"bytes": -1}, "d": {},
    }  # fmt: skip
    path = tmp_path / "channels.json"
    path.write_text(json.dumps(policies))
    for config, name in (({KEY: policies}, KEY), ({FILE: path}, f"{FILE} ({path})")):
        with pytest.raises(UnknownSetting) as caught:
            Settings.load({**config, "SSE_PUSH_RETRY": "x"}, {"SSE_PUSH_RETYR": "5"})
        lines = str(caught.value).split("\n- ")
        assert lines[0] == "8 mistakes in the settings:"
        assert lines[1].startswith(
            "there is no setting SSE_PUSH_RETYR, which the environment has; did you mean SSE_PUSH_RETRY?"
        )
        rest = "\n".join(lines[2:])
        assert "SSE_PUSH_RETRY is 'x', but must be a number of seconds" in rest
        for problem in (
            "the pattern 'user *' must be", "the policy of 'user *' has the key 'histroy', which must be",
            "the policy of 'user *' has 'ttl': '1_0', which must be", "the policy of 'a' is 5, but must be",
            "the policy of 'c' has 'bytes': -1, which must be",
            "the pattern 'd' must be before '*', which matches all its channels: this policy never counts",
        ):  # fmt: skip
            assert f"{name}: {problem}" in rest


def test_a_message_about_many_mistakes_has_a_bound() -> None:
    found = refusal({KEY: {f"user {number}": {"history": "x" * 10_000} for number in range(1000)}})
    assert found.startswith("2000 mistakes in the settings:\n- ")
    assert found.endswith("\n- 1990 more")
    assert len(found) < 5000


def test_the_path_of_the_file_may_be_a_path_object(tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_text('{"a": {"history": 5}}')
    assert Settings.load({FILE: path}, {}).channels == (ChannelRule("a", history=5),)
    assert refusal({FILE: tmp_path / "none"}).startswith(f"{FILE} is '{tmp_path}/none', but must be the path")
    assert "but must be the path of a JSON file" in refusal({FILE: 5})


def test_times_may_be_timedeltas() -> None:
    day, wait = timedelta(days=1), timedelta(milliseconds=100)
    assert Settings.load({KEY: {"a": {"ttl": day, "batch_ms": wait}}}, {}).channels == (
        ChannelRule("a", ttl=86400.0, batch_ms=100),
    )
    for name in ("history", "bytes", "public"):
        assert f"the policy of 'a' has {name!r}: " in refusal({KEY: {"a": {name: day}}})
    for value in (timedelta(microseconds=100_500), timedelta(seconds=6), -wait):
        assert "a whole number of milliseconds" in refusal({KEY: {"a": {"batch_ms": value}}})


def test_bad_json_names_line_and_column(tmp_path: Path) -> None:
    text = '{\n  "user:*": {"history" 50}\n}'
    assert "; line 2, column 24: " in refusal({}, {KEY: text})
    path = tmp_path / "channels.json"
    path.write_text(text)
    message = refusal({}, {FILE: str(path)})
    assert message.startswith(f"{FILE} is {str(path)!r}, but must be JSON such as ")
    assert "; line 2, column 24: " in message


def test_json_with_a_pattern_or_key_twice_is_refused() -> None:
    assert "these are repeated: 'a'" in refusal({}, {KEY: '{"a": {}, "b": {}, "a": {"ttl": 5}}'})
    assert "these are repeated: 'ttl', 'a'" in refusal({}, {KEY: '{"a": {"ttl": 5, "ttl": 6}, "a": {}}'})


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    assert "nested too deeply" in refusal({}, {KEY: "[" * 100_000})


def test_a_wrong_policy_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_text('{"user:*": {"history": 0}}')
    assert refusal({FILE: str(path)}).startswith(f"{FILE} ({path}): the policy of 'user:*' has 'history': 0")


def test_a_file_that_cannot_be_read_is_refused_and_named(tmp_path: Path) -> None:
    missing, binary, huge = tmp_path / "missing.json", tmp_path / "binary.json", tmp_path / "huge.json"
    binary.write_bytes(b'{"\xff": {}}')
    huge.write_bytes(b" " * (MAX_FILE + 1))
    for path, problem in [
        (missing, "No such file"), (tmp_path, "Is a directory"), (binary, "can't decode"),
        (huge, f"at most {MAX_FILE} bytes"),
    ]:  # fmt: skip
        message = refusal({FILE: str(path)})
        assert message.startswith(f"{FILE} is {str(path)!r}, but must be ")
        assert problem in message


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": {"history": 5}}')
    assert Settings.load({FILE: str(path)}, {}).channels == (ChannelRule("a", history=5),)


def test_policies_and_a_file_of_policies_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "channels.json"
    path.write_text("{}")
    message = refusal({KEY: POLICIES}, {FILE: str(path)})
    assert message == f"{FILE} is {str(path)!r}, but must be left out, because {KEY} is set too"


@pytest.mark.parametrize(
    ("earlier", "later"), [("*", "user:*"), ("user:*", "user:7"), ("*:a*", "x:ab?"), ("room:*", "room:[ab]*")]
)
def test_a_policy_that_would_never_count_is_refused(earlier: str, later: str) -> None:
    found = refusal({KEY: {earlier: {"ttl": 5}, later: {"history": 5}}})
    assert f"the pattern {later!r} must be before {earlier!r}, which matches all its channels" in found
    Settings.load({KEY: {later: {"history": 5}, earlier: {"ttl": 5}}}, {})


def test_overlapping_policies_are_allowed() -> None:
    Settings.load({KEY: {"user:?": {"ttl": 5}, "user:*": {"ttl": 6}, "*:7": {"ttl": 7}}}, {})


def test_numbers_with_thousands_of_digits_are_refused(tmp_path: Path) -> None:
    digits = "1" * 5000
    text = f'{{"a": {{"history": {digits}}}}}'
    path = tmp_path / "channels.json"
    path.write_text(text)
    for found in (refusal({}, {KEY: text}), refusal({}, {FILE: str(path)})):
        assert "a number in it has too many digits" in found
    assert "history" in refusal({KEY: {"a": {"history": 10**5000}}})
    for name in ("SSE_PUSH_HISTORY_SIZE", "SSE_PUSH_HISTORY_TTL"):
        assert name in refusal({name: 10**5000})


@pytest.mark.parametrize(("earlier", "later"), [("*-*", "[a-z]*"), ("room:*b*", "room:[abc]")])
def test_a_class_of_characters_is_not_covered_by_one_of_its_characters(earlier: str, later: str) -> None:
    Settings.load({KEY: {earlier: {"ttl": 5}, later: {"ttl": 6}}}, {})


UNWRITABLE = {"number": 10**5000, "list": [10**5000], "mapping": {"a": 10**5000}, "surrogate": "\ud800"}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE)
def test_each_setting_refuses_what_python_cannot_write(value: Any) -> None:
    accepted = []
    for spec in fields(Settings):
        try:
            Settings.load({Settings.key(spec.name): value}, {})
        except ConfigError as error:
            str(error).encode()
        else:
            accepted.append(spec.name)
    assert accepted == []


@pytest.mark.parametrize(
    "policy",
    [{10**5000: 1}, {"public": 10**5000}, {"presence": [10**5000]}],
    ids=["key", "public", "presence"],
)
def test_each_key_of_a_policy_refuses_what_python_cannot_write(policy: Any) -> None:
    assert "the policy of 'a' has" in refusal({KEY: {"a": policy}})
