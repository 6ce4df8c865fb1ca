"""The bytes of the protocol's own events, of comments and of reconnection times (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..errors import ErrorCode, error_body
from .entry import event_frame
from .event import LINE_END
from .shard_cursor import StreamCursor

# json.dumps would make an encoder for each call.
_compact = json.JSONEncoder(separators=(",", ":")).encode


def control_frame(type: str, data: Any, cursor: str | None = None, retry_ms: int | None = None) -> bytes:
    """One of the protocol's own events, such as `sse.open`. JSON contains no raw line end."""
    retry = "" if retry_ms is None else f"retry: {retry_ms}\n"
    body = f"event: {type}\n{retry}data: {_compact(data)}\n\n".encode()
    return body if cursor is None else event_frame(cursor, body)


@lru_cache(1024)
def _named(channels: tuple[str, ...]) -> str:
    return _compact(channels)


def open_frame(
    cursor: str,
    connection: str,
    channels: tuple[str, ...],
    *,
    resumed: bool,
    heartbeat: float,
    secret: str | None,
) -> bytes:
    """`sse.open`. Written without json.dumps: every stream gets its own, and few differ in their channels.

    :param connection: letters, digits, `-` and `_`, as in `secret`: JSON need not escape them.
    """
    secret_field = "" if secret is None else f',"secret":"{secret}"'
    return (
        f'id: {cursor}\nevent: sse.open\ndata: {{"connection":"{connection}","channels":{_named(channels)},'
        f'"resumed":{"true" if resumed else "false"},"heartbeat":{heartbeat!r}{secret_field}}}\n\n'
    ).encode()


def comment(text: str) -> bytes:
    """A comment line, which clients skip. It has no blank line after it and belongs to the next event: some
    clients report an event for a block of comments alone."""
    return "".join(f": {line}\n" for line in LINE_END.split(text)).encode()


def retry_line(retry_ms: int) -> bytes:
    """Sets the client's reconnection time, in milliseconds. Belongs to the next event, as `comment` does."""
    return b"retry: %d\n" % retry_ms


def jittered_ms(seconds: float, chance: random.Random | None = None) -> int:
    """A random reconnection time, in milliseconds: 50 to 150 % of `seconds`, so that clients spread out."""
    return round(seconds * (0.5 + (chance or random).random()) * 1000)


def close_frame(reason: str, *, reconnect: bool, retry: float) -> bytes:
    """`sse.close`, with a random reconnection time for each client; `retry` is the mean, in seconds."""
    retry_ms = jittered_ms(retry)
    data = {"reason": reason, "reconnect": reconnect, "retry": retry_ms}
    return control_frame("sse.close", data, retry_ms=retry_ms)


def reset_frame(channels: Sequence[str], reason: str, cursor: str | None) -> bytes:
    """`sse.reset`: events of `channels` are gone, so the client fetches the state of these channels again."""
    return control_frame("sse.reset", {"channels": channels, "reason": reason}, cursor)


def error_frame(code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> bytes:
    """`sse.error`, in the shape of `errors.error_body`."""
    return control_frame("sse.error", error_body(code, message, details))


def heartbeat_frame(cursor: StreamCursor | str) -> bytes:
    """`sse.heartbeat`. Not a comment: page script sees an event, and Firefox takes an id only with data."""
    return control_frame("sse.heartbeat", {}, str(cursor))
