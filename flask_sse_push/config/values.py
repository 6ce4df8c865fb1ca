"""The values that settings accept: functions that check a value and convert it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from ..errors import MAX_TOLD, ConfigError, shown
from .channel_policies import ADMIN_CHANNEL, CHARACTERS

#: At most how long an event may wait for its batch, in milliseconds. Batches are meant to save work, not to
#: store events: the history stores events.
MAX_BATCH_MS = 5000

#: At most how many characters a pattern of channels may have: as many as the name of a channel.
MAX_PATTERN = 200

#: A function that checks and converts the value of a key; raises ConfigError if the value is not valid.
ReadValue = Callable[[str, Any], Any]


#: A number as text. Python itself would also read underscores and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
#: The units of times. A setting with such a unit may also be a timedelta.
_TIMES = {"seconds": timedelta(seconds=1), "milliseconds": timedelta(milliseconds=1)}


def number(lowest: float, highest: float, unit: str = "") -> ReadValue:
    """Returns a function that reads a number from `lowest` to `highest`. A time may be a timedelta."""
    what = f"a number of {unit}" if unit else "a number"

    def read(key: str, value: Any) -> float:
        found, plain = float("nan"), _in_unit(value, unit)
        if isinstance(plain, str) and not _NUMBER.fullmatch(plain.strip()):
            plain = None
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            found = float("nan") if isinstance(plain, (bool, bytes, bytearray)) else float(plain)
        if not lowest <= found <= highest:
            raise ConfigError(key, value, f"{what} from {lowest:.15g} to {highest:.15g}")
        return found

    return read


def whole(lowest: int, highest: int, unit: str) -> ReadValue:
    """Returns a function that reads a whole number from `lowest` to `highest`. A time may be a timedelta."""

    def read(key: str, value: Any) -> int:
        found, plain = -1, _in_unit(value, unit)
        with contextlib.suppress(ValueError):  # a number may have more digits than Python writes
            found = int(plain) if re.fullmatch(r"[0-9]{1,15}", str(plain)) else -1
        if isinstance(value, bool) or not lowest <= found <= highest:
            raise ConfigError(key, value, f"a whole number of {unit} from {lowest} to {highest}")
        return found

    return read


def _in_unit(value: Any, unit: str) -> Any:
    """Returns a timedelta as a number of seconds or milliseconds, and any other value as it is."""
    if not isinstance(value, timedelta) or unit not in _TIMES:
        return value
    found = value / _TIMES[unit]
    return int(found) if found.is_integer() else found


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
    return _checked_patterns(key, value, names(key, value))


def _checked_patterns(key: str, value: Any, found: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [f"{shown(each)} must be {expected}" for each in found if (expected := wrong_pattern(each))]
    if wrong:
        raise ConfigError(key, value, f"names or patterns of channels: {'; '.join(wrong[:MAX_TOLD])}")
    return found


_CLASS = re.compile(r"\[!?[^]\ud800-\udfff]+\]")


def wrong_pattern(pattern: str) -> str:
    """Returns what an fnmatch pattern of channels must be instead; "" if nothing is wrong with it."""
    if len(pattern) > MAX_PATTERN:
        return f"a pattern of at most {MAX_PATTERN} characters, not {len(pattern)}"
    if pattern == ADMIN_CHANNEL:
        return "another name: this channel belongs to the admin page, and only @sse.authorize_admin opens it"
    classes = _CLASS.findall(pattern)
    can_match = all(any(fnmatchcase(each, one) for each in CHARACTERS) for one in classes)
    if can_match and re.fullmatch(r"[A-Za-z0-9_:./@*?-]+", _CLASS.sub("?", pattern)):
        return ""
    allowed = "the name of a channel (A-Z a-z 0-9 _ : . / @ -) or a pattern such as scores:*"
    return f"{allowed}; no channel can match {shown(pattern)}"


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
        found = [(str(name).strip(), str(_in_unit(wait, "milliseconds")).strip()) for name, wait in pairs]
        if all(p and re.fullmatch("[0-9]{1,4}", wait) and int(wait) <= MAX_BATCH_MS for p, wait in found):
            _checked_patterns(key, value, tuple(pattern for pattern, _ in found))
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


def path(key: str, value: Any) -> str:
    """Reads the path of a file, as text or as a path object. An empty path means that there is no file."""
    with contextlib.suppress(TypeError):
        found = os.fsdecode(value)
        if "\0" not in found:
            return found
    raise ConfigError(key, value, "the path of a JSON file")


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
    if not isinstance(value, str) or not re.fullmatch(r"[a-z+]+://[^\n\ud800-\udfff]*", value):
        shown = without_secret(value) if isinstance(value, str) else value
        raise ConfigError(key, shown, "a URL such as redis://localhost:6379/0")
    return value


def without_secret(url: str) -> str:
    """Returns the URL for logs, without user, password and options."""
    shown = re.sub(r"^([A-Za-z+]*).*@", r"\1://***@", url, flags=re.DOTALL)
    return re.sub(r"\?.+", "?***", shown, flags=re.DOTALL)
