"""Events as an app passes them to `publish`: the rules for each field, and an event's bytes on the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..errors import InvalidEvent
from .channel import code_point, name_problem, plain_str

#: Writes data that is not a string, as text.
Dumps = Callable[[Any], str]

#: Types that begin with this are the protocol's own.
RESERVED = "sse."
MAX_TYPE = 200
#: A month in milliseconds: a client with a longer reconnection time never comes back.
MAX_RETRY_MS = 30 * 86_400_000
MAX_EXCLUDED = 100

#: Only these end a line in an event stream (WHATWG HTML 9.2.5). str.splitlines() would also cut at U+2028.
LINE_END = re.compile("\r\n|\r|\n")

_ONCE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_TYPE_FORBIDDEN = re.compile("[\r\n\0\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Event(NamedTuple):
    """One event: text, an optional type, an optional reconnection time for the client."""

    data: str
    type: str | None = None
    retry_ms: int | None = None

    def encode(self) -> bytes:
        """The event's lines as clients read them, with the blank line at the end, without an `id:` line."""
        head = "" if self.type is None else f"event: {self.type}\n"
        if self.retry_ms is not None:
            head += f"retry: {self.retry_ms}\n"
        data = LINE_END.sub("\ndata: ", self.data)
        return f"{head}data: {data}\n\n".encode()


def make_event(
    data: Any, type: str | None = None, *, retry: int | None = None, dumps: Dumps = json.dumps
) -> Event:
    """Checks what an app passed and returns it as an event. Strings stay, everything else becomes JSON.

    :raises InvalidEvent: naming the field and what is wrong with it.
    """
    if data.__class__ is not str:
        data = _text(data, dumps)
    if not data.isascii() and (found := _SURROGATE.search(data)):
        raise InvalidEvent(
            "data", f"has a lone surrogate {code_point(found[0])} at {found.start()}; not UTF-8"
        )
    if type is not None:
        type = _checked_type(type)
    if retry is not None:
        _check_retry(retry)
    return Event(data, type, retry)


def _text(data: Any, dumps: Dumps) -> str:
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidEvent("data", "is bytes; decode it, or encode it as base64 text")
    if not isinstance(data, str):
        try:
            data = dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidEvent("data", f"cannot be written as JSON: {error}") from error
    return data if data.__class__ is str else plain_str(data)


def _checked_type(type: str) -> str:
    if not isinstance(type, str):
        raise InvalidEvent("type", f"is {type!r}, must be a string")
    found = _TYPE_FORBIDDEN.search(type)
    if found:
        raise InvalidEvent("type", f"has the forbidden character {code_point(found[0])} at {found.start()}")
    if type.startswith(RESERVED):
        raise InvalidEvent("type", f"{type!r} begins with {RESERVED!r}, which is kept for the protocol")
    if not 0 < len(type) <= MAX_TYPE:
        raise InvalidEvent("type", f"has {len(type)} characters, must have 1 to {MAX_TYPE}")
    return plain_str(type)


def _check_retry(retry: int) -> None:
    if not isinstance(retry, int) or isinstance(retry, bool) or not 0 <= retry <= MAX_RETRY_MS:
        raise InvalidEvent("retry", f"is {retry!r}, must be milliseconds from 0 to {MAX_RETRY_MS}")


def plain_line_ends(text: str) -> str:
    """`text` as clients read it from `data:` lines: each line end is one LF."""
    return LINE_END.sub("\n", text)


def checked_once(id: str) -> str:
    """Returns `id` if it is an idempotency id.

    :raises InvalidEvent: naming the first character that is not allowed.
    """
    if isinstance(id, str) and _ONCE.fullmatch(id):
        return plain_str(id)
    raise InvalidEvent("id", name_problem(id, "A-Z a-z 0-9 . _ : -", r"[A-Za-z0-9._:-]", 128))


def checked_exclude(exclude: object) -> tuple[str, ...]:
    """The connection ids and user ids in `exclude`, as strings. It holds one id or several; None holds none.

    :raises InvalidEvent: for too many ids, and for one that is too long or not UTF-8.
    """
    if exclude is None:
        return ()
    several = isinstance(exclude, Iterable) and not isinstance(exclude, str)
    names = tuple(map(str, exclude if several else (exclude,)))  # type: ignore[call-overload]
    if len(names) > MAX_EXCLUDED:
        raise InvalidEvent("exclude", f"{len(names)} ids given, must be at most {MAX_EXCLUDED}")
    for name in names:
        if len(name) > 200 or _SURROGATE.search(name):
            raise InvalidEvent("exclude", f"{name[:40]!r} must be UTF-8 text of at most 200 characters")
    return names


def checked_ttl(ttl: float | None) -> float | None:
    """Seconds after which an event is no longer replayed; None: as long as the history keeps it.

    :raises InvalidEvent: when `ttl` is not a number of seconds from 0 to 10**8.
    """
    if ttl is None:
        return None
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 <= ttl <= 10**8:
        raise InvalidEvent("ttl", f"is {ttl!r}, must be seconds from 0 to 10**8")
    return float(ttl)
