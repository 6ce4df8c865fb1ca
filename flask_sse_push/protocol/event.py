"""Events as an app hands them over, and the rules each field must meet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidEvent

#: Serialises what is not a string already.
Dumps = Callable[[Any], str]

#: Types that begin so are the protocol's own.
RESERVED = "sse."
MAX_TYPE = 200
#: A month in milliseconds: a longer `retry` is a client that never comes back.
MAX_RETRY_MS = 30 * 86_400_000
MAX_EXCLUDED = 100

_ONCE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_TYPE_FORBIDDEN = re.compile("[\r\n\0\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Event:
    """One event: text, an optional type, an optional reconnection time for the client."""

    data: str
    type: str | None = None
    retry_ms: int | None = None


def make_event(
    data: Any, type: str | None = None, *, retry: int | None = None, dumps: Dumps = json.dumps
) -> Event:
    """An event from what an app passed. Strings go out as they are, everything else as JSON.

    :raises InvalidEvent: naming the field and what is wrong with it.
    """
    return Event(_data_text(data, dumps), _checked_type(type), _checked_retry(retry))


def _data_text(data: Any, dumps: Dumps) -> str:
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidEvent("data", "is bytes; decode it, or encode it as base64 text")
    if not isinstance(data, str):
        try:
            data = dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidEvent("data", f"cannot be written as JSON: {error}") from error
    found = _SURROGATE.search(data)
    if found:
        raise InvalidEvent("data", f"has a lone surrogate {_shown(found[0])} at {found.start()}; not UTF-8")
    return _plain(data)


def _plain(text: str) -> str:
    """The characters of `text`, and nothing of a subclass: an enum's `format` would write its name."""
    return str.__str__(text)


def _checked_type(type: str | None) -> str | None:
    if type is None:
        return None
    if not isinstance(type, str):
        raise InvalidEvent("type", f"is {type!r}, must be a string")
    found = _TYPE_FORBIDDEN.search(type)
    if found:
        raise InvalidEvent("type", f"has the forbidden character {_shown(found[0])} at {found.start()}")
    if type.startswith(RESERVED):
        raise InvalidEvent("type", f"{type!r} begins with {RESERVED!r}, which is kept for the protocol")
    if not 0 < len(type) <= MAX_TYPE:
        raise InvalidEvent("type", f"has {len(type)} characters, must have 1 to {MAX_TYPE}")
    return _plain(type)


def _checked_retry(retry: int | None) -> int | None:
    if retry is None:
        return None
    if not isinstance(retry, int) or isinstance(retry, bool) or not 0 <= retry <= MAX_RETRY_MS:
        raise InvalidEvent("retry", f"is {retry!r}, must be milliseconds from 0 to {MAX_RETRY_MS}")
    return retry


def checked_once(id: str) -> str:
    """`id`, when it is an idempotency id."""
    if isinstance(id, str) and _ONCE.fullmatch(id):
        return _plain(id)
    raise InvalidEvent("id", _name_problem(id, "A-Z a-z 0-9 . _ : -", r"[A-Za-z0-9._:-]", 128))


def checked_exclude(exclude: object) -> tuple[str, ...]:
    """Connection ids and user ids an event is kept from; one or several, as strings."""
    if exclude is None:
        return ()
    several = isinstance(exclude, Iterable) and not isinstance(exclude, str)
    names = tuple(str(item) for item in (exclude if several else (exclude,)))  # type: ignore[attr-defined]
    if len(names) > MAX_EXCLUDED:
        raise InvalidEvent("exclude", f"{len(names)} ids given, must be at most {MAX_EXCLUDED}")
    for name in names:
        found = _SURROGATE.search(name)
        if found or len(name) > 200:
            raise InvalidEvent("exclude", f"{name[:40]!r} must be UTF-8 text of at most 200 characters")
    return names


def checked_ttl(ttl: float | None) -> float | None:
    """Seconds after which an event is no longer replayed; None: as long as the history keeps it."""
    if ttl is None:
        return None
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 <= ttl <= 10**8:
        raise InvalidEvent("ttl", f"is {ttl!r}, must be seconds from 0 to 10**8")
    return float(ttl)


def checked_compress(compress: str | None) -> bool:
    """Whether the payload is to be compressed when that makes it smaller."""
    if compress not in (None, "auto"):
        raise InvalidEvent("compress", f"is {compress!r}, must be 'auto' or None")
    return compress is not None


def _name_problem(name: object, allowed: str, character: str, longest: int) -> str:
    if not isinstance(name, str):
        return f"is {name!r}, must be a string"
    for at, found in enumerate(name[: longest + 1]):
        if not re.fullmatch(character, found, re.ASCII):
            return f"has the forbidden character {_shown(found)} at {at}; allowed are {allowed}"
    return f"has {len(name)} characters, must have 1 to {longest}"


def _shown(character: str) -> str:
    return f"U+{ord(character):04X}"
