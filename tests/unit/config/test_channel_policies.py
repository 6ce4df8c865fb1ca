"""Channel policies: which rule counts for a channel, and where the values come from that it leaves out."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push.config import ChannelPolicies, ChannelPolicy, Settings
from flask_sse_push.config.channel_policies import MAX_REMEMBERED, open_user_channel
from flask_sse_push.errors import ConfigError


def policies(channels: Any = None, **others: Any) -> ChannelPolicies:
    values = {"channels": channels, **others}
    return Settings.load({Settings.key(name): value for name, value in values.items()}, {}).policies


def test_without_rules_all_channels_have_the_other_settings() -> None:
    found = policies(history_size=7, history_ttl=60, history_bytes=5000)
    assert found["a"] == ChannelPolicy("", 7, 60.0, 5000, 0, public=False, presence=False)
    assert found["sse"].public
    assert found["a"].kept == "7 60000 5000"


def test_the_first_pattern_that_matches_counts() -> None:
    found = policies({"user:7": {"history": 5}, "user:*": {"ttl": 60, "history": 9}, "*": {"history": 2}})
    assert (found["user:7"].history, found["user:7"].ttl) == (5, 3600.0)
    assert (found["user:8"].history, found["user:8"].ttl) == (9, 60.0)
    assert (found["sse"].pattern, found["sse"].history, found["user:8"].pattern) == ("*", 2, "user:*")


def test_patterns_match_with_regard_to_case() -> None:
    assert policies({"User:*": {"history": 5}})["user:7"].history == 1000


def test_what_a_policy_leaves_out_comes_from_the_other_settings() -> None:
    found = policies(
        {"room:a": {"public": False, "batch_ms": 0}, "room:b": {"presence": False}, "room:*": {"history": 5}},
        public_channels=["room:*"],
        presence_channels=["room:*"],
        batch_ms={"room:*": 100},
    )
    a, b, c = found["room:a"], found["room:b"], found["room:c"]
    assert (a.public, a.presence, a.batch_ms) == (False, True, 0)
    assert (b.public, b.presence, b.batch_ms) == (True, False, 100)
    assert (c.public, c.presence, c.batch_ms, c.history) == (True, True, 100, 5)


@pytest.mark.parametrize("own", ["*", "!commands", "!"])
def test_no_rule_applies_to_the_packages_own_channels(own: str) -> None:
    rule = {"history": 1, "ttl": 5, "bytes": 9, "batch_ms": 100, "public": True, "presence": True}
    found = policies({"*": rule}, public_channels="*", presence_channels="*", batch_ms="*=50")
    assert found[own] == ChannelPolicy("", 1000, 3600.0, 0, 0, public=False, presence=False)


def test_whether_any_channel_has_batches_or_counts_its_users() -> None:
    quiet = policies({"a": {"history": 5, "presence": False, "batch_ms": 0}})
    assert (quiet.have_batches, quiet.have_presence) == (False, False)
    assert policies({"a": {"batch_ms": 5}}).have_batches
    assert policies({"a": {"presence": True}}).have_presence
    assert policies(batch_ms="a=5").have_batches
    assert policies(presence_channels="a").have_presence


def test_the_longest_time_is_over_all_rules_and_the_setting() -> None:
    assert policies({"a": {"ttl": 86400}, "b": {"ttl": 5}, "c": {}}).longest_ttl == 86400
    assert policies({"b": {"ttl": 5}}).longest_ttl == 3600


def test_the_remembered_policies_are_bounded() -> None:
    found = policies({"user:*": {"history": 5}})
    for number in range(MAX_REMEMBERED + 10):
        assert found[f"user:{number}"].history == 5
    assert len(found) <= MAX_REMEMBERED


def test_a_policy_is_made_once_while_it_is_remembered() -> None:
    found = policies({"user:*": {"history": 5}})
    assert found["user:7"] is found["user:7"]


@pytest.mark.parametrize(
    ("pattern", "is_open"),
    [
        *[(each, True) for each in ("user:7", "user:8", "user:*", "*", "user:?", "user:[xz]", "us*", "*:*")],
        *[(each, False) for each in ("user", "user:", "users:*", "room:*", "sse", "[a-t]ser:7")],
        ("[u]ser:9", True),
    ],
)  # fmt: skip
def test_a_pattern_that_opens_the_channel_of_a_user_is_found(pattern: str, is_open: bool) -> None:
    for values in ({"channels": {pattern: {"public": True}}}, {"public_channels": [pattern]}):
        settings = Settings.load({Settings.key(name): value for name, value in values.items()}, {})
        found = open_user_channel(settings)
        assert (found is not None) is is_open
        if found:
            assert found.channel.startswith("user:")
            assert settings.policies[found.channel].public
            assert found.is_named is pattern.startswith("user:")
            assert repr(pattern) in found.opened_by


def test_a_pattern_that_an_earlier_policy_closes_for_users_is_no_fault() -> None:
    rules = {"user:*": {"public": False}, "*": {"public": True}}
    assert open_user_channel(Settings.load({"SSE_PUSH_CHANNELS": rules}, {})) is None


def test_the_documented_ranges_are_those_that_are_checked() -> None:
    page = (Path(__file__).parents[3] / "docs/channels.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\d+) to (\d+) (\w+) \| `(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for name, lowest, highest, unit, setting in rows:
        assert setting in {Settings.key(spec.name) for spec in fields(Settings)}
        for value in (int(lowest), int(highest)):
            assert getattr(policies({"a": {name: value}}).rules[0], name) == value
        for value in (int(lowest) - 1, int(highest) + 1):
            with pytest.raises(ConfigError, match=f" of {unit} from {lowest} to {highest}$"):
                policies({"a": {name: value}})
