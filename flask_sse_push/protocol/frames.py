"""The bytes of the protocol's own events, of comments and of reconnection times (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..errors import ErrorCode, error_body
from .data import MARK
from .entry import event_frame
from .event import LINE_END
from .shard_cursor import StreamCursor

#: The dialect of a stream says how the server writes its own events on the stream: it is the value of
#: `?events=`, or "". A plain stream gets no `sse.open`, `sse.heartbeat` and `sse.close`.
PLAIN = "plain"
#: The dialects of libraries whose pages would pass over `sse.reset`, with the event that these pages get
#: instead. The event reloads the page. It has no script, which a Content-Security-Policy could forbid.
RESETS = {
    "turbo": b'data: <turbo-stream action="refresh"></turbo-stream>\n\n',
    "datastar": b"event: datastar-patch-elements\ndata: selector body\ndata: mode append\n"
    b'data: elements <i data-init="location.reload()"></i>\n\n',
}

# One encoder for all calls, because json.dumps would make a new encoder for each call.
_compact = json.JSONEncoder(separators=(",", ":")).encode


def control_frame(type: str, data: Any, cursor: str | None = None, retry_ms: int | None = None) -> bytes:
    """Returns the frame of one of the protocol's own events, such as `sse.open`.

    The JSON fits on one `data:` line, because JSON escapes line ends.
    """
    retry = "" if retry_ms is None else f"retry: {retry_ms}\n"
    body = f"event: {type}\n{retry}data: {_compact(data)}\n\n".encode()
    return body if cursor is None else event_frame(cursor, body)


@lru_cache(128)  # the names of many channels take some 10 kB
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
    retry_ms: int | None = None,
    user: str | None = None,
    tells_user: bool = False,
    time_ms: int | None = None,
) -> bytes:
    """Returns the frame of `sse.open`, built without json.dumps to be fast: each stream gets its own frame.

    The data has the mark of JSON. It tells the client that this server marks all JSON (see `data`).

    :param connection: the id of the stream. `connection` and `secret` consist of letters, digits, `-` and
        `_`, which JSON does not escape.
    :param secret: the text that proves a client's right to change its channels, or None.
    :param retry_ms: the reconnection time. The data has it because scripts on the page cannot see a `retry:`
        line.
    :param user: the id of the user, or None.
    :param tells_user: whether the frame names the user.
    :param time_ms: the broker's clock in milliseconds since 1970, for pages that measure latency;
        None: nobody measures, or the time is not known.
    """
    more = "" if retry_ms is None else f',"retry":{retry_ms}'
    more += "" if secret is None else f',"secret":"{secret}"'
    more += f',"user":{_compact(user)}' if tells_user else ""
    more += "" if time_ms is None else f',"time":{time_ms}'
    return (
        f'id: {cursor}\nevent: sse.open\ndata: {{"connection":"{connection}","channels":{_named(channels)},'
        f'"resumed":{"true" if resumed else "false"},"heartbeat":{heartbeat!r}{more}}}{MARK}\n\n'
    ).encode()


def comment(text: str) -> bytes:
    """Returns a comment line, which clients skip.

    No blank line follows, so the comment belongs to the next event. Some clients would report an event for a
    comment that is followed by a blank line.
    """
    return "".join(f": {line}\n" for line in LINE_END.split(text)).encode()


def retry_line(retry_ms: int) -> bytes:
    """Returns a `retry:` line, which sets the client's reconnection time and belongs to the next event."""
    return b"retry: %d\n" % retry_ms


def jittered_ms(seconds: float, chance: random.Random | None = None) -> int:
    """Returns a random reconnection time, in milliseconds: 50 to 150 % of `seconds`.

    Random times keep clients from reconnecting all at once.
    """
    return round(seconds * (0.5 + (chance or random).random()) * 1000)


def close_frame(reason: str, *, reconnect: bool, retry: float, dialect: str = "") -> bytes:
    """Returns the frame of `sse.close`, with a random reconnection time whose average is `retry` seconds.

    :param dialect: the stream's dialect. A plain stream gets only the reconnection time.
    """
    retry_ms = jittered_ms(retry)
    if dialect == PLAIN:
        return retry_line(retry_ms)
    data = {"reason": reason, "reconnect": reconnect, "retry": retry_ms}
    return control_frame("sse.close", data, retry_ms=retry_ms)


def reset_frame(channels: Sequence[str], reason: str, cursor: str | None, dialect: str = "") -> bytes:
    """Returns the frame of `sse.reset`: events of `channels` are gone; the client must load fresh data.

    :param dialect: the stream's dialect. Streams with a dialect in `RESETS` get another event.
    """
    if dialect in RESETS:
        return RESETS[dialect] if cursor is None else event_frame(cursor, RESETS[dialect])
    return control_frame("sse.reset", {"channels": channels, "reason": reason}, cursor)


def error_frame(code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> bytes:
    """Returns the frame of `sse.error`. The fields of its data are those of `errors.error_body`."""
    return control_frame("sse.error", error_body(code, message, details))


def heartbeat_frame(cursor: StreamCursor | str, *, dialect: str = "") -> bytes:
    """Returns the frame of `sse.heartbeat`.

    A heartbeat is an event and not a comment, because scripts on the page cannot see comments, and Firefox
    stores an id only if the event has data.

    :param dialect: the stream's dialect. A plain stream gets a comment, and the cursor. No blank line
        follows: httpx-sse and fetch-event-source would report an event without data.
    """
    if dialect == PLAIN:
        return f": heartbeat\nid: {cursor}\n".encode()
    return control_frame("sse.heartbeat", {}, str(cursor))
