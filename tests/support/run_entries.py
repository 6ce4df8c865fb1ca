"""The events of runs as the broker stores them, and what clients of each format read of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from flask_sse_push.protocol.entry import Entry
from flask_sse_push.protocol.event import make_event
from flask_sse_push.runs.output import BEGIN, END, end_data, event_of

CHANNEL, EPOCH = "run:k", "abc"


def entry(id: int, type: str | None, data: Any, channel: str = CHANNEL, **options: Any) -> Entry:
    """Returns an event of a channel."""
    return Entry(EPOCH, id, id - 1, make_event(data, type).encode(), channels=(channel,), **options)


def run_entries(
    items: Sequence[Any], status: str = "done", error: str | None = None, run: str = "r1", first: int = 10
) -> list[Entry]:
    """Returns the events of a whole run, without joining any items."""
    events = [(BEGIN, {"run": run}), *map(event_of, items), (END, end_data(run, status, error))]
    return [entry(id, *event) for id, event in enumerate(events, first)]


def objects_in(body: bytes) -> list[Any]:
    """Returns the data of all events in the body of a response; `[DONE]` as text."""
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def delta_of(chunk: Any) -> str | None:
    """Returns the text that a chunk of any format adds to the answer, or to the reasoning; None if none."""
    if isinstance(chunk, dict) and chunk.get("type") in (
        "text-delta", "reasoning-delta", "TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT",
    ):  # fmt: skip
        return str(chunk["delta"])
    if isinstance(chunk, dict) and chunk.get("choices"):
        content = chunk["choices"][0]["delta"].get("content")
        return None if content is None else str(content)
    return None


def with_delta(chunk: Any, delta: str) -> Any:
    """Returns a copy of a chunk with another text."""
    if "choices" in chunk:
        (choice,) = chunk["choices"]
        return {**chunk, "choices": [{**choice, "delta": {**choice["delta"], "content": delta}}]}
    return {**chunk, "delta": delta}


def folded(chunks: Iterable[Any]) -> list[Any]:
    """Joins neighbouring chunks that differ in nothing but their text, as a client that shows them does."""
    found: list[Any] = []
    for chunk in chunks:
        delta = delta_of(chunk)
        before = delta_of(found[-1]) if found else None
        if delta is None or before is None or with_delta(chunk, "") != with_delta(found[-1], ""):
            found.append(chunk)
        else:
            found[-1] = with_delta(chunk, before + delta)
    return found
