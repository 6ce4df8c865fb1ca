"""The items that a source reports: events, and changes of its stream. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...protocol.data import unmarked
from ...protocol.event import RESERVED

#: How long a client waits before it reconnects, in seconds, if the server has not set a time. Browsers
#: wait this long too.
PAUSE = 3.0
#: At most how many seconds a server takes to answer a request for a stream, byte by byte or all at once.
ANSWER_TIMEOUT = 20.0


class Received(NamedTuple):
    """An event that has arrived."""

    type: str
    data: str
    id: str = ""
    channel: str = ""  # the event's channel; empty if the source does not know the channel
    published: float | None = None  # Unix time in seconds; None if the source does not know the time

    @property
    def is_control(self) -> bool:
        """Whether the event belongs to the protocol: its type begins with `sse.`."""
        return self.type.startswith(RESERVED)


class Opened(NamedTuple):
    """The stream is open. `heartbeat`: seconds between two heartbeats; None if the server did not say."""

    resumed: bool = False
    channels: tuple[str, ...] = ()
    heartbeat: float | None = None


class Heartbeat(NamedTuple):
    """A heartbeat of the stream, or the echo of a probe, has arrived."""


class Missed(NamedTuple):
    """Events were lost and cannot be recovered."""

    reason: str


class Disconnected(NamedTuple):
    """The stream ended or was cut. The source reconnects in `pause` seconds."""

    why: str
    pause: float


class Ended(NamedTuple):
    """The stream ended, and the source does not reconnect."""

    why: str


News = Received | Opened | Heartbeat | Missed | Disconnected | Ended


def meaning(event: Received) -> Iterator[News]:
    """Yields the news that an event of the protocol brings: changes of its stream, and events of a batch.

    Yields nothing if the event's data has another form than docs/protocol.md describes, because the server
    may be one that does not use this package.
    """
    content = _content(event)
    if event.type == "sse.batch":
        yield from _members(content)
    elif not isinstance(content, dict):
        return
    elif event.type == "sse.open":
        yield Opened(
            content.get("resumed") is True,
            _names(content),
            _number(content.get("heartbeat")),
        )
    elif event.type == "sse.heartbeat":
        yield Heartbeat()
    elif event.type == "sse.reset":
        names = ", ".join(_names(content)) or "all channels"
        yield Missed(f"{names}: {content.get('reason', 'no reason given')}")
    elif event.type == "sse.close":
        yield _closing(content)


def _content(event: Received) -> Any:
    if not event.is_control:
        return None
    try:
        return json.loads(event.data)
    except (ValueError, RecursionError):
        return None


def _names(content: dict[str, Any]) -> tuple[str, ...]:
    channels = content.get("channels")
    return tuple(map(str, channels)) if isinstance(channels, list) else ()


def _members(content: Any) -> Iterator[Received]:
    for member in content if isinstance(content, list) else ():
        if isinstance(member, dict):
            data, _ = unmarked(str(member.get("data")))
            yield Received(str(member.get("type")), data, str(member.get("id", "")))


def _closing(content: dict[str, Any]) -> News:
    reason = content.get("reason", "no reason given")
    if content.get("reconnect") is False:
        return Ended(f"the server closed the stream ({reason}) and asks the client not to come back")
    retry_ms = _number(content.get("retry"))
    return Disconnected(
        f"the server closed the stream ({reason})", PAUSE if retry_ms is None else retry_ms / 1000
    )


def _number(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 10**9 else None
