"""Batches: several events as one `sse.batch`, for which streams, and when each is due.

Pure: the groups hold what waits, and the hub says what time it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .frames import event_frame

if TYPE_CHECKING:
    pass

TYPE = "sse.batch"
#: Events of one batch: a client hands them out in one go.
MAX_EVENTS = 100
#: Bytes of events from which on a batch is full.
MAX_BYTES = 65_536

# json.dumps would make an encoder for each call. Characters beyond ASCII need no escape in UTF-8.
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def pack(frames: Sequence[bytes]) -> bytes:
    """The frames of events as batches, none of them too big. The cursor of each is its last event's."""
    return b"".join([_batch(part) for part in _parts(frames)])


def _parts(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    begin = size = 0
    for at, each in enumerate(frames):
        if at > begin and (at - begin == MAX_EVENTS or size + len(each) > MAX_BYTES):
            yield frames[begin:at]
            begin, size = at, 0
        size += len(each)
    if frames:
        yield frames[begin:]


def _batch(frames: Sequence[bytes]) -> bytes:
    messages = []
    message: dict[str, Any] = {}
    retry = ""
    for each in frames:
        message, own_retry = message_of(each)
        messages.append(_json(message))
        retry = own_retry or retry
    body = f"event: {TYPE}\n{retry}data: [{','.join(messages)}]\n\n"
    return event_frame(message["id"], body.encode())


def message_of(event: bytes) -> tuple[dict[str, Any], str]:
    """What a batch holds of one event, and its line with a reconnection time, if it has one."""
    message: dict[str, Any] = {"type": "message", "data": ""}
    data, retry = [], ""
    for line in event.decode().split("\n"):
        field, _, value = line.partition(": ")
        if field == "data":
            data.append(value)
        elif field == "retry":
            retry = line + "\n"
        elif field == "event":
            message["type"] = value
        elif field == "channel":
            message["channels"] = value.split(",")
        elif field:
            message[field] = value
    message["data"] = "\n".join(data)
    return message, retry
