"""Packs several events into one event of type `sse.batch`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .entry import event_frame

TYPE = "sse.batch"
#: At most this many events in one batch: a client calls its handlers for all events of a batch in one go.
MAX_EVENTS = 100
#: At most this many bytes of events in one batch. A bigger event gets a batch of its own.
MAX_BYTES = 65_536

# One encoder for all calls, because json.dumps would make a new encoder for each call. With
# ensure_ascii=False characters beyond ASCII are not escaped: the batch is sent as UTF-8.
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def pack(frames: Sequence[bytes]) -> bytes:
    """Packs the frames of events into batches within the limits, and returns the bytes of the batches.

    Each batch has the cursor of its last event.
    """
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
    """Returns an event as an item of a batch, then the event's `retry:` line, or `""` if it has none."""
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
