"""The event stream format (WHATWG HTML, section 9.2) and the response headers it travels with."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .event import Event

#: No proxy may store, change or hold back the stream; nosniff keeps old browsers from guessing a type.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store, no-transform, private",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie",
}

#: The same where compression is on, for a client that does not accept it, and for one that does.
NEGOTIATED_HEADERS: Mapping[str, str] = {**HEADERS, "Vary": "Cookie, Accept-Encoding"}
GZIP_HEADERS: Mapping[str, str] = {**NEGOTIATED_HEADERS, "Content-Encoding": "gzip"}

# Only these end a line (9.2.5, grammar `end-of-line`). str.splitlines() would cut at U+2028 and others too.
_LINE_END = re.compile("\r\n|\r|\n")


def encode_body(event: Event) -> bytes:
    """Everything of an event but its `id:` line, the closing blank line included."""
    lines = []
    if event.type is not None:
        lines.append(f"event: {event.type}\n")
    if event.retry_ms is not None:
        lines.append(f"retry: {event.retry_ms}\n")
    lines.extend(f"data: {line}\n" for line in _LINE_END.split(event.data))
    lines.append("\n")
    return "".join(lines).encode()


def plain_line_ends(text: str) -> str:
    """`text` as clients read it from `data:` lines: each line end is one LF."""
    return _LINE_END.sub("\n", text)


def frame(cursor: str, body: bytes) -> bytes:
    """One event as it goes to the client. `cursor` must be ASCII without line ends."""
    return b"id: %b\n%b" % (cursor.encode("ascii"), body)


# json.dumps would make an encoder for each call.
_compact = json.JSONEncoder(separators=(",", ":")).encode


def control(type: str, data: Any, cursor: str | None = None, retry_ms: int | None = None) -> bytes:
    """One of the protocol's own events, such as `sse.open`. JSON holds no raw line end."""
    retry = "" if retry_ms is None else f"retry: {retry_ms}\n"
    body = f"event: {type}\n{retry}data: {_compact(data)}\n\n".encode()
    return body if cursor is None else frame(cursor, body)


@lru_cache(1024)
def _named(channels: tuple[str, ...]) -> str:
    return _compact(channels)


def opening_frame(
    cursor: str,
    connection: str,
    channels: tuple[str, ...],
    *,
    resumed: bool,
    heartbeat: float,
    secret: str | None,
) -> bytes:
    """`sse.open`, put together by hand: each stream has one of its own, and few differ in their channels.

    :param connection: of letters, digits, `-` and `_`, as is the secret: nothing that JSON would escape.
    """
    told = "" if secret is None else f',"secret":"{secret}"'
    return (
        f'id: {cursor}\nevent: sse.open\ndata: {{"connection":"{connection}","channels":{_named(channels)},'
        f'"resumed":{"true" if resumed else "false"},"heartbeat":{heartbeat!r}{told}}}\n\n'
    ).encode()


def comment(text: str) -> bytes:
    """A line that clients skip, part of the next block: some give out a block of comments as an event."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode()


def retry_line(retry_ms: int) -> bytes:
    """Sets the client's reconnection time, in milliseconds. Part of the next block, for the same reason."""
    return b"retry: %d\n" % retry_ms


def jittered_ms(seconds: float, chance: random.Random | None = None) -> int:
    """A reconnection time around `seconds`, in milliseconds: 50 to 150 %, so that clients spread out."""
    return round(seconds * (0.5 + (chance or random).random()) * 1000)
