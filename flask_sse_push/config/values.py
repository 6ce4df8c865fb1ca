"""The values that settings accept: functions that check a value and convert it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError

#: At most how long an event may wait for its batch, in milliseconds. Batches are meant to save work, not to
#: store events: the history stores events.
MAX_BATCH_MS = 5000

#: A function that checks and converts the value of a key; raises ConfigError if the value is not valid.
ReadValue = Callable[[str, Any], Any]


def number(lowest: float, highest: float, unit: str = "") -> ReadValue:
    """Returns a function that reads a number from `lowest` to `highest`."""
    what = f"a number of {unit}" if unit else "a number"

    def read(key: str, value: Any) -> float:
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            found = float("nan")
        if isinstance(value, bool) or not lowest <= found <= highest:
            raise ConfigError(key, value, f"{what} from {lowest:g} to {highest:g}")
        return found

    return read


def whole(lowest: int, highest: int, unit: str) -> ReadValue:
    """Returns a function that reads a whole number from `lowest` to `highest`."""

    def read(key: str, value: Any) -> int:
        found = -1
        with contextlib.suppress(ValueError):  # a number may have more digits than Python writes
            found = int(value) if re.fullmatch(r"[0-9]{1,15}", str(value)) else -1
        if isinstance(value, bool) or not lowest <= found <= highest:
            raise ConfigError(key, value, f"a whole number of {unit} from {lowest} to {highest}")
        return found

    return read


def names(key: str, value: Any) -> tuple[str, ...]:
    """Reads names from a collection, or from one string with commas."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in value
    ):
        raise ConfigError(key, value, "a list of names, or one string with commas")
    return tuple(value)


def patterns(key: str, value: Any) -> tuple[str, ...]:
    """Reads fnmatch patterns of channels from a collection, or from one string with commas."""
    return checked_patterns(key, value, names(key, value))


def checked_patterns(key: str, value: Any, found: tuple[str, ...]) -> tuple[str, ...]:
    """Returns fnmatch patterns of channels. Raises ConfigError if no channel's name can match a pattern."""
    for pattern in found:
        if not re.fullmatch(r"([A-Za-z0-9_:./@*?-]|\[[^]]+\])+", pattern):
            allowed = "names of channels (A-Z a-z 0-9 _ : . / @ -) or patterns such as scores:*"
            raise ConfigError(key, value, f"{allowed}; no channel can match {pattern[:200]!r}")
    return found


_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def flag(key: str, value: Any) -> bool:
    """Reads true or false, also from a word such as `yes` or `off`."""
    word = ""
    with contextlib.suppress(ValueError):  # a number may have more digits than Python writes
        word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ConfigError(key, value, "true or false")
    return word in _TRUE


def waits(key: str, value: Any) -> tuple[tuple[str, int], ...]:
    """Reads milliseconds for each channel pattern, from a mapping or from text: `ticks:*=100, prices=250`."""
    pairs: Any = value
    if isinstance(value, str):
        pairs = [pair.partition("=")[::2] for pair in value.split(",") if pair.strip()]
    elif isinstance(value, Mapping):
        pairs = value.items()
    with contextlib.suppress(TypeError, ValueError):
        found = [(str(pattern).strip(), str(wait).strip()) for pattern, wait in pairs]
        if all(p and re.fullmatch("[0-9]{1,4}", wait) and int(wait) <= MAX_BATCH_MS for p, wait in found):
            checked_patterns(key, value, tuple(pattern for pattern, _ in found))
            return tuple((pattern, int(wait)) for pattern, wait in found)
    expected = f"milliseconds from 0 to {MAX_BATCH_MS} for each channel pattern, such as {{'ticks:*': 100}}"
    raise ConfigError(key, value, expected)


def matching(pattern: str, expected: str) -> ReadValue:
    """Returns a function that reads a text which matches the regular expression `pattern`."""

    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ConfigError(key, value, expected)
        return value

    return read


rate = matching(
    r"([1-9][0-9]{0,8}/(second|minute|hour))?",
    "empty, or a number per second, minute or hour, such as 60/minute",
)


def origins(key: str, value: Any) -> tuple[str, ...]:
    """Reads the origins of pages, exactly as browsers send them."""
    found = names(key, value)
    for origin in found:
        is_exact = re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._~:\[\]-]+", origin)
        if not is_exact or re.fullmatch("http:.*:80|https:.*:443", origin):
            raise ConfigError(
                key,
                value,
                "exact origins as browsers send them, such as https://app.example.com: in small letters, "
                "without a path, and without the usual ports (http has 80, https has 443). * and null "
                "are refused: any page could then read with a user's cookies",
            )
    return found


def url(key: str, value: Any) -> str:
    """Reads the URL of a broker. The error about a wrong URL does not quote its password."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z+]+://.*", value):
        shown = without_secret(value) if isinstance(value, str) else value
        raise ConfigError(key, shown, "a URL such as redis://localhost:6379/0")
    return value


def without_secret(url: str) -> str:
    """Returns the URL for logs, without user, password and options."""
    shown = re.sub(r"^([A-Za-z+]*).*@", r"\1://***@", url, flags=re.DOTALL)
    return re.sub(r"\?.+", "?***", shown, flags=re.DOTALL)
