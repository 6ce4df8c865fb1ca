"""Reads `SSE_PUSH_CHANNELS`: the rules of channel policies, from a mapping, from JSON, or from a file."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import MAX_TOLD, ConfigError, WrongChannelPolicy
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

    :raises ConfigError: if `value` is no mapping from patterns to policies, or if policies are wrong. The
        message names the pattern and the key of each mistake.
    """
    if isinstance(value, str):
        value = _parsed(key, value, value) if value.strip() else {}
    if value == ():
        return ()
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, f"a mapping from channel patterns to policies, such as {_EXAMPLE}")
    mistakes: list[ConfigError] = []
    rules: list[ChannelRule] = []
    for pattern, policy in value.items():
        chosen: dict[str, Any] = {}
        found = list(_read_policy(key, pattern, policy, chosen)) or list(_unreachable(key, pattern, rules))
        mistakes += found
        if not found:
            rules.append(ChannelRule(pattern, **chosen))
    ConfigError.raise_all(mistakes)
    return tuple(rules)


def _unreachable(key: str, pattern: str, earlier: Sequence[ChannelRule]) -> Iterator[WrongChannelPolicy]:
    """Yields an error if an earlier pattern matches all channels of a policy: it would never count."""
    # A pattern whose only wildcards are stars covers a second pattern if it matches the text of it. In this
    # text, "?" takes the place of each [class]: only a star matches "?", as a class may be any character.
    text = re.sub(r"\[[^]]+\]", "?", pattern)
    for each in earlier:
        if not re.search(r"[?[]", each.pattern) and fnmatchcase(text, each.pattern):
            expected = f"before {each.pattern!r}, which matches all its channels: this policy never counts"
            yield WrongChannelPolicy(key, pattern, None, pattern, expected)
            return


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
    repeated: list[str] = []  # Python would ignore all but the last

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        counts = Counter(name for name, _ in pairs)
        repeated.extend(repr(name) for name in found if counts[name] > 1)
        return found

    problem = "a number in it has too many digits"
    try:
        found = json.loads(text, object_pairs_hook=as_dict)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        pass
    else:
        if not repeated:
            return found
        problem = f"each key may be there once, but these are repeated: {', '.join(repeated[:MAX_TOLD])}"
    raise ConfigError(key, value, f"JSON such as {_EXAMPLE}; {problem}")


def _read_policy(key: str, pattern: Any, policy: Any, chosen: dict[str, Any]) -> Iterator[WrongChannelPolicy]:
    """Reads a policy into `chosen`. Yields an error about each mistake in the pattern and the policy."""
    is_text = isinstance(pattern, str)
    expected = values.wrong_pattern(pattern) if is_text else "text, such as 'user:*'"
    if expected:
        yield WrongChannelPolicy(key, pattern, None, pattern, expected)
    if not isinstance(policy, Mapping):
        yield WrongChannelPolicy(key, pattern, None, policy, 'a mapping such as {"history": 50}')
        return
    for name, value in policy.items():
        if name not in _READ:
            yield WrongChannelPolicy(key, pattern, name, value, _known(name))
        elif value is not None:
            try:
                chosen[name] = _READ[name](key, value)
            except ConfigError as error:
                yield WrongChannelPolicy(key, pattern, name, value, error.expected)


def _known(name: Any) -> str:
    """Returns what an unknown key of a policy should have been."""
    lowered = name.lower().removeprefix("sse_push_") if isinstance(name, str) else ""
    similar = [
        *difflib.get_close_matches(lowered.removeprefix("history_"), _READ, 1),
        *difflib.get_close_matches(lowered, _READ, 1),
    ]
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    return f"one of {', '.join(sorted(_READ))}{hint}"
