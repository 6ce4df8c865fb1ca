"""What a client got, record by record, and how to read the records from frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_sse_push.protocol import batch

# The field `at` is the monotonic time at which the record arrived.


class Opened(NamedTuple):
    """`sse.open`: the position at which the stream begins."""

    cursor: str
    resumed: bool
    at: float = 0.0


class Got(NamedTuple):
    """An event, by its serial number."""

    serial: int
    cursor: str
    at: float = 0.0


class Moved(NamedTuple):
    """A heartbeat: nothing up to its cursor is still to come."""

    cursor: str
    at: float = 0.0


class Reset(NamedTuple):
    """`sse.reset`: events of these channels may be gone."""

    channels: tuple[str, ...]
    reason: str
    cursor: str | None = None
    at: float = 0.0


class Missed(NamedTuple):
    """`sse.missed`: the events up to `until` on channels that the stream is joining."""

    channels: tuple[str, ...]
    events: tuple[Got, ...]
    until: str
    at: float = 0.0


class Changed(NamedTuple):
    """`sse.channels`: the stream's channels from here on."""

    channels: tuple[str, ...]
    joined: tuple[str, ...]
    left: tuple[str, ...]
    cursor: str | None = None
    at: float = 0.0


class Ended(NamedTuple):
    """`sse.close`."""

    reason: str
    at: float = 0.0


Record = Opened | Got | Moved | Reset | Missed | Changed | Ended


def cursor_of(record: Record) -> str | None:
    """The cursor that a client has after this record; None: the one it had before."""
    return None if isinstance(record, Missed | Ended) else record.cursor


def records_of(frame: bytes, at: float = 0.0) -> list[Record]:
    """Reads one frame. A batch gives a record for each of its events. `sse.error` gives none."""
    fields = dict(line.split(": ", 1) for line in frame.decode().split("\n") if ": " in line)
    kind, data, cursor = fields.get("event", "message"), fields.get("data"), fields.get("id")
    if data is None or kind == "sse.error":
        return []
    if kind != "sse.batch":
        return [_record(kind, data, cursor, at)]
    messages = json.loads(data)
    assert 0 < len(messages) <= batch.MAX_EVENTS
    assert messages[-1]["id"] == cursor
    return [_record(each["type"], each["data"], each["id"], at) for each in messages]


def _record(kind: str, text: str, cursor: str | None, at: float) -> Record:
    data = json.loads(text)
    if kind == "sse.reset":
        return Reset(tuple(data["channels"]), data["reason"], cursor, at)
    if kind == "sse.channels":
        return Changed(tuple(data["channels"]), tuple(data["joined"]), tuple(data["left"]), cursor, at)
    if kind == "sse.missed":
        events = tuple(Got(_serial(json.loads(each["data"])), each["id"], at) for each in data["events"])
        return Missed(tuple(data["channels"]), events, data["cursor"], at)
    if kind == "sse.close":
        return Ended(data["reason"], at)
    assert cursor is not None, f"{kind} without a cursor"
    if kind == "sse.open":
        return Opened(cursor, data["resumed"], at)
    if kind == "sse.heartbeat":
        return Moved(cursor, at)
    assert kind == "message", kind
    return Got(_serial(data), cursor, at)


def _serial(data: int | dict[str, int]) -> int:
    """Events of the model are their serial numbers; those of the fault suite have more beside it."""
    return data["n"] if isinstance(data, dict) else data


@dataclass
class Connection:
    """One connection of a client: from the cursor it came with to its end."""

    channels: frozenset[str]
    came_with: str | None
    asked_at: float = 0.0
    answered_at: float | None = None
    status: int | None = None
    records: list[Record] = field(default_factory=list)

    def got(self) -> list[Got]:
        """The events that arrived."""
        return [record for record in self.records if isinstance(record, Got)]

    def resets(self) -> list[Reset]:
        """The resets that arrived."""
        return [record for record in self.records if isinstance(record, Reset)]
