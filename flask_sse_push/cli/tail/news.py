"""What a source of events tells, and what the protocol's own events mean. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...protocol.event import RESERVED

#: Seconds before a client comes back when nobody has said how long: what browsers take.
PAUSE = 3.0


class Came(NamedTuple):
    """An event as the client got it."""

    type: str
    data: str
    id: str = ""
    channel: str = ""  # where the source knows it

    @property
    def is_control(self) -> bool:
        """Whether it is one of the protocol's own, such as `sse.open`."""
        return self.type.startswith(RESERVED)


class Opened(NamedTuple):
    """The stream stands. `heartbeat` is the longest silence to expect, in seconds, when that is known."""

    resumed: bool = False
    channels: tuple[str, ...] = ()
    heartbeat: float | None = None


class Beat(NamedTuple):
    """A heartbeat, or a probe that came back."""


class Missed(NamedTuple):
    """Events are gone for good."""

    reason: str


class Lost(NamedTuple):
    """The stream ended or was cut; in `pause` seconds it is tried again."""

    why: str
    pause: float


class Ended(NamedTuple):
    """It ended, and nothing more is tried."""

    why: str


News = Came | Opened | Beat | Missed | Lost | Ended


def meaning(event: Came) -> Iterator[News]:
    """What an event says of the stream itself, and those that it carries for others.

    What is not as docs/protocol.md has it says nothing: it may come from anywhere.
    """
    content = _content(event)
    if event.type == "sse.batch":
        yield from _members(content)
    elif not isinstance(content, dict):
        return
    elif event.type == "sse.open":
        yield Opened(
            content.get("resumed") is True,
            tuple(str(name) for name in content.get("channels") or ()),
            _number(content.get("heartbeat")),
        )
    elif event.type == "sse.heartbeat":
        yield Beat()
    elif event.type == "sse.reset":
        names = ", ".join(map(str, content.get("channels") or ()))
        yield Missed(f"{names or 'all channels'}: {content.get('reason', 'no reason given')}")
    elif event.type == "sse.close":
        yield _closing(content)


def _content(event: Came) -> Any:
    if not event.is_control:
        return None
    try:
        return json.loads(event.data)
    except ValueError:
        return None


def _members(content: Any) -> Iterator[Came]:
    for each in content if isinstance(content, list) else ():
        if isinstance(each, dict):
            yield Came(str(each.get("type")), str(each.get("data")), str(each.get("id", "")))


def _closing(content: dict[str, Any]) -> News:
    reason = content.get("reason", "no reason given")
    if content.get("reconnect") is False:
        return Ended(f"the server closed the stream ({reason}) and asks not to come back")
    retry_ms = _number(content.get("retry"))
    return Lost(f"the server closed the stream ({reason})", PAUSE if retry_ms is None else retry_ms / 1000)


def _number(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 10**9 else None
