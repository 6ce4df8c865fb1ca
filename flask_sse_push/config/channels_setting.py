"""Reads `SSE_PUSH_CHANNELS`: the rules of channel policies, from a mapping, from JSON, or from a file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import ConfigError, WrongChannelPolicy
from . import values
from .channel_policies import ChannelRule

#: What a policy may say, and how each value is read.
_READ: Mapping[str, values.ReadValue] = {
    "history": values.whole(1, 100_000, "events"),
    "ttl": values.number(1, 10**8, "seconds"),
    "bytes": values.whole(0, 10**10, "bytes"),
    "batch_ms": values.whole(0, values.MAX_BATCH_MS, "milliseconds"),
    "public": values.flag,
    "presence": values.flag,
}
#: At most how many bytes a file of policies may have.
MAX_FILE = 1_000_000
_EXAMPLE = '{"user:*": {"history": 50, "ttl": 86400}}'


def channel_rules(key: str, value: Any) -> tuple[ChannelRule, ...]:
    """Reads the policies of channel patterns, from a mapping or from JSON.

    :raises ConfigError: if `value` is no mapping from patterns to policies, or if a policy is wrong. The
        message about a wrong policy names the pattern and the key.
    """
    if isinstance(value, str):
        value = _parsed(key, value, value) if value.strip() else {}
    if value == ():
        return ()
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, f"a mapping from channel patterns to policies, such as {_EXAMPLE}")
    rules = tuple(_rule(key, pattern, policy) for pattern, policy in value.items())
    for at, rule in enumerate(rules):
        _check_reachable(key, rule, rules[:at])
    return rules


def _check_reachable(key: str, rule: ChannelRule, earlier: Sequence[ChannelRule]) -> None:
    """Checks that no earlier pattern matches all channels of a policy: then the policy would never count."""
    # A pattern whose only wildcards are stars covers a second pattern if it matches the text of it. In this
    # text, "?" takes the place of each [class]: only a star matches "?", as a class may be any character.
    text = re.sub(r"\[[^]]+\]", "?", rule.pattern)
    for each in earlier:
        if not re.search(r"[?[]", each.pattern) and fnmatchcase(text, each.pattern):
            problem = (
                f"patterns in an order in which each counts: {each.pattern!r} stands before {rule.pattern!r}"
            )
            raise ConfigError(key, rule.pattern, f"{problem} and matches all its channels")


def rules_in_file(key: str, path: str) -> tuple[ChannelRule, ...]:
    """Reads the policies of channel patterns from a JSON file.

    :raises ConfigError: as `channel_rules` does, or if the file cannot be read; the message names the file.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise ConfigError(key, path, f"a file of at most {MAX_FILE} bytes")
        content = text.decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(key, path, f"the path of a readable JSON file: {error}") from error
    return channel_rules(f"{key} ({path})", _parsed(key, path, content))


def _parsed(key: str, value: str, text: str) -> Any:
    """Returns the object that JSON describes.

    :param value: what the error about wrong JSON quotes.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(key, value, f"JSON such as {_EXAMPLE}; {at}: {error.msg}") from error
    except _Repeated as error:
        raise ConfigError(key, value, f"JSON that has each key once; {error} is there twice") from error
    except RecursionError as error:
        raise ConfigError(key, value, f"JSON such as {_EXAMPLE}; it is nested too deeply") from error
    except ValueError as error:
        raise ConfigError(
            key, value, f"JSON such as {_EXAMPLE}; a number in it has too many digits"
        ) from error


class _Repeated(Exception):
    """A JSON object has a key twice. Python would ignore the first."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Repeated(repr(name))
        found[name] = value
    return found


def _rule(key: str, pattern: Any, policy: Any) -> ChannelRule:
    if not isinstance(pattern, str):
        raise ConfigError(key, pattern, "a mapping whose keys are channel patterns, such as 'user:*'")
    values.checked_patterns(key, pattern, (pattern,))
    if not isinstance(policy, Mapping):
        raise WrongChannelPolicy(key, pattern, None, policy, 'a mapping such as {"history": 50}')
    found = {}
    for name, value in policy.items():
        if name not in _READ:
            raise WrongChannelPolicy(key, pattern, name, value, _known(name))
        if value is not None:
            try:
                found[name] = _READ[name](key, value)
            except ConfigError as error:
                raise WrongChannelPolicy(key, pattern, name, value, error.expected) from None
    return ChannelRule(pattern, **found)


def _known(name: Any) -> str:
    """Returns what an unknown key of a policy should have been."""
    lowered = name.lower().removeprefix("sse_push_") if isinstance(name, str) else ""
    similar = [
        *difflib.get_close_matches(lowered.removeprefix("history_"), _READ, 1),
        *difflib.get_close_matches(lowered, _READ, 1),
    ]
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    return f"one of {', '.join(sorted(_READ))}{hint}"
