"""Packs several events into one `sse.batch`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .entry import event_frame

TYPE = "sse.batch"
#: Events in one batch: a client passes them to its handlers in one go.
MAX_EVENTS = 100
#: Bytes of events in one batch; a bigger event is a batch alone.
MAX_BYTES = 65_536

# json.dumps would make an encoder for each call. UTF-8 needs no escapes for characters beyond ASCII.
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def pack(frames: Sequence[bytes]) -> bytes:
    """Packs the frames of events into batches within the limits. A batch has the cursor of its last event."""
    return b"".join([_batch(part) for part in _parts(frames)])


def _parts(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    begin = size = 0
    for at, frame in enumerate(frames):
        if at > begin and (at - begin == MAX_EVENTS or size + len(frame) > MAX_BYTES):
            yield frames[begin:at]
            begin, size = at, 0
        size += len(frame)
    if frames:
        yield frames[begin:]


def _batch(frames: Sequence[bytes]) -> bytes:
    messages = []
    message: dict[str, Any] = {}
    retry = ""
    for frame in frames:
        message, own_retry = message_of(frame)
        messages.append(_json(message))
        retry = own_retry or retry
    body = f"event: {TYPE}\n{retry}data: [{','.join(messages)}]\n\n"
    return event_frame(message["id"], body.encode())


def message_of(frame: bytes) -> tuple[dict[str, Any], str]:
    """An event as an item of a batch, and its `retry:` line or an empty string."""
    message: dict[str, Any] = {"type": "message", "data": ""}
    data, retry = [], ""
    for line in frame.decode().split("\n"):
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
