"""Events as an app publishes them: the rules for each field, and the lines of an event on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

from ..errors import InvalidEvent, shown
from . import datastar
from .channel import code_point, name_problem, plain_str, with_number_as_text
from .data import MARK, PACKED, Dumps, Envelope, encoded, flask_dumps

#: Prefix of the event types that the protocol keeps for its own events.
RESERVED = "sse."
#: With this word in place of a type, a handler of `PushClient` gets the events of all types.
EVERY_TYPE = "*"
MAX_TYPE = 200
#: The longest reconnection time, in milliseconds: 30 days. A client would hardly wait longer.
MAX_RETRY_MS = 30 * 86_400_000
MAX_EXCLUDED = 100

#: The three line ends of an event stream (WHATWG HTML 9.2.5). str.splitlines() would also split at
#: other characters, such as U+2028.
LINE_END = re.compile("\r\n|\r|\n")

_ONCE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
# Control characters (C0, DEL, C1), which a terminal would obey, and lone surrogates, which are not UTF-8.
_TYPE_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Event(NamedTuple):
    """One event: its text, an optional type, and an optional reconnection time for the client.

    `is_json` says that the text is sent with the mark of JSON, and `is_packed` that the text is an envelope,
    which is sent with both marks (see `data`).
    """

    data: str
    type: str | None = None
    retry_ms: int | None = None
    is_json: bool = False
    is_packed: bool = False
    traceparent: str = ""  # the context of the trace; "" if the event is not traced

    def encode(self) -> bytes:
        """Returns the lines of the event for the wire: no `id:` line, and a blank line at the end."""
        head = "" if self.type is None else f"event: {self.type}\n"
        if self.retry_ms is not None:
            head += f"retry: {self.retry_ms}\n"
        if self.traceparent:
            head += f"traceparent: {self.traceparent}\n"
        data = self.data
        if "\n" in data or "\r" in data:
            data = LINE_END.sub("\ndata: ", data)
        mark = PACKED if self.is_packed else MARK if self.is_json else ""
        return f"{head}data: {data}{mark}\n\n".encode()


def make_event(
    data: Any, type: str | None = None, *, retry: int | None = None, dumps: Dumps = flask_dumps
) -> Event:
    """Checks the arguments of `publish` and returns them as an event.

    :param data: a string stays as it is, and an event of datastar-py keeps its lines; any other value is
        written with `dumps`.
    :raises InvalidEvent: if an argument is not valid; the message names the argument.
    """
    is_json = False
    is_packed = data.__class__ is Envelope
    if data.__class__ is not str or data[-1:] == MARK:
        if data.__class__.__name__ == datastar.CLASS:
            data, type, retry = datastar.fields(data, type, retry)
        elif data.__class__ in (list, tuple):
            datastar.check_no_list(data)
        data, is_json = encoded(data, dumps)
    elif data[:16] == datastar.BEGIN and f"\n\n{datastar.BEGIN}" in data:
        raise InvalidEvent("data", datastar.SEVERAL)
    if not data.isascii() and (found := _SURROGATE.search(data)):
        raise InvalidEvent(
            "data", f"has a lone surrogate {code_point(found[0])} at {found.start()}; not UTF-8"
        )
    if type is not None:
        type = checked_type(type)
    if retry is not None:
        _check_retry(retry)
    return Event(data, type, retry, is_json, is_packed)


def checked_type(type: str | int) -> str:
    """Returns an event type as a plain string. A whole number becomes text.

    :raises InvalidEvent: if the type is not valid, or reserved for the protocol.
    """
    type = with_number_as_text(type)
    if not isinstance(type, str):
        raise InvalidEvent("type", f"is {shown(type)}, must be a string")
    found = _TYPE_FORBIDDEN.search(type)
    if found:
        raise InvalidEvent("type", f"has the forbidden character {code_point(found[0])} at {found.start()}")
    if type == EVERY_TYPE:
        raise InvalidEvent("type", f"is {type!r}, which means events of every type when a page listens")
    if type.startswith(RESERVED):
        raise InvalidEvent("type", f"{type!r} begins with {RESERVED!r}, which is reserved for the protocol")
    if not 0 < len(type) <= MAX_TYPE:
        raise InvalidEvent("type", f"has {len(type)} characters, must have 1 to {MAX_TYPE}")
    return plain_str(type)


def _check_retry(retry: int) -> None:
    if not isinstance(retry, int) or isinstance(retry, bool) or not 0 <= retry <= MAX_RETRY_MS:
        raise InvalidEvent("retry", f"is {shown(retry)}, must be milliseconds from 0 to {MAX_RETRY_MS}")


def plain_line_ends(text: str) -> str:
    """Returns `text` with LF for each line end, as clients read it from `data:` lines."""
    return LINE_END.sub("\n", text)


def checked_once(id: str | int) -> str:
    """Returns `id` if it is a valid idempotency id. A whole number becomes text.

    :raises InvalidEvent: if `id` is not valid; the message names the first forbidden character.
    """
    id = with_number_as_text(id)
    if isinstance(id, str) and _ONCE.fullmatch(id):
        return plain_str(id)
    raise InvalidEvent("id", name_problem(id, "A-Z a-z 0-9 . _ : -", r"[A-Za-z0-9._:-]", 128))


def checked_exclude(exclude: object) -> tuple[str, ...]:
    """Returns the connection ids and user ids in `exclude` as strings.

    :param exclude: one id, several ids, or None.
    :raises InvalidEvent: if there are too many ids, or if an id is not an id, too long or not UTF-8.
    """
    if exclude is None:
        return ()
    if not isinstance(exclude, Iterable) or isinstance(exclude, (str, bytes, bytearray)):
        return (_checked_excluded(exclude, None),)
    ids = tuple(exclude)
    if len(ids) > MAX_EXCLUDED:
        raise InvalidEvent("exclude", f"{len(ids)} ids given, must be at most {MAX_EXCLUDED}")
    return tuple(_checked_excluded(id, at) for at, id in enumerate(ids))


def _checked_excluded(id: object, at: int | None) -> str:
    if not isinstance(id, (str, int, UUID)) or isinstance(id, bool):
        raise InvalidEvent("exclude", f"is {shown(id)}, must be the id of a user or of a connection", at)
    name = plain_str(id) if isinstance(id, str) else str(id)
    if len(name) > 200 or _SURROGATE.search(name):
        raise InvalidEvent("exclude", f"{name[:40]!r} must be UTF-8 text of at most 200 characters", at)
    return name


def checked_ttl(ttl: float | None) -> float | None:
    """Returns how long an event is replayed, in seconds; None means as long as the history keeps the event.

    :raises InvalidEvent: if `ttl` is not a number of seconds from 0 to 10**8.
    """
    if ttl is None:
        return None
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 <= ttl <= 10**8:
        raise InvalidEvent("ttl", f"is {shown(ttl)}, must be seconds from 0 to 10**8")
    return float(ttl)
