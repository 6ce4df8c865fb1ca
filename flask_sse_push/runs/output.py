"""The events of one run that the broker has not got yet. Text is joined, everything else stays as it is.

The event types of a run are `run.begin` {"run"}, `run.text` {"text"}, `run.item` (any JSON), types that the
producer chooses, and at the end `run.end` {"run", "status", "error"}.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..announcer import Batch, MessageAnnouncer
from ..errors import InvalidEvent
from ..protocol.entry import Publication

BEGIN = "run.begin"
TEXT = "run.text"
ITEM = "run.item"
END = "run.end"
#: Producers must not use types with this prefix.
RESERVED = "run."

#: What an app passes as a producer: an iterable, or a function that returns one and is called in the thread
#: of the run.
Items = Iterable[Any] | Callable[[], Iterable[Any]]

#: Characters of text, or bytes of other events, that may wait for the broker; then the producer must wait.
MAX_WAITING = 100_000
#: The most bytes that one character takes in JSON: two escapes `\\uXXXX`.
BYTES_PER_CHARACTER = 12
#: Bytes of JSON around the text.
AROUND = len('{"text":  ""}')


def event_of(item: Any) -> tuple[str, Any]:
    """Returns type and data of the event for one item that a producer yielded.

    A string is text. A pair that begins with a string is a type of the producer's own and its data. Anything
    else is the data of a `run.item`.

    :raises InvalidEvent: for a type that begins with `run.`.
    """
    if isinstance(item, str):
        return TEXT, {"text": item}
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        if item[0].startswith(RESERVED):
            raise InvalidEvent("type", f"{item[0]!r} begins with {RESERVED!r}, which is kept for runs")
        return item
    return ITEM, item


def end_data(run: str, status: str, error: str | None = None) -> dict[str, str | None]:
    """Returns the data of the last event.

    :param status: `done`, `stopped` or `failed`.
    :param error: the class name of the error. Never its message, which may hold what readers must not see.
    """
    return {"run": run, "status": status, "error": error}


class Output:
    """A queue of the events of one run. One thread puts items in, another one takes events out."""

    def __init__(self, announcer: MessageAnnouncer, channel: str, max_message: int) -> None:
        self._announcer = announcer
        self._channel = channel
        self._max_text = max(1, (max_message - AROUND) // BYTES_PER_CHARACTER)  # characters of one event
        self._room = threading.Condition()
        self._waiting: deque[str | Publication] = deque()
        self._size = 0  # of all that waits
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Any) -> bool:
        """Adds an item; blocks while the queue is full. Returns False, and adds nothing, once it is closed.

        :raises InvalidEvent: when the item cannot be sent as an event.
        """
        type, data = event_of(item)
        content: str | Publication = item if type == TEXT else self._publication(type, data)
        with self._room:
            while self._size >= MAX_WAITING and not self._closed:
                self._room.wait()
            if self._closed:
                return False
            if content:
                self._waiting.append(content)
                self._size += _size(content)
            return True

    def take(self, limit: int) -> list[Publication]:
        """Removes up to `limit` events and returns them. Neighbouring strings become one event if they fit.

        :raises InvalidEvent: when text cannot be sent as an event; that text is dropped.
        """
        taken: list[Publication] = []
        left = len(self._waiting)  # items put meanwhile wait for the next call, where they can be joined
        while len(taken) < limit and left > 0:
            with self._room:
                left -= len(self._waiting)
                content = self._next()
                left += len(self._waiting)
                self._room.notify()
            if isinstance(content, str):
                content = self._publication(TEXT, {"text": content})
            taken.append(content)
        return taken

    def _next(self) -> str | Publication:
        """Removes the content of the next event and returns it. The caller holds the lock."""
        first = self._waiting[0]
        if not isinstance(first, str):
            self._size -= _size(first)
            self._waiting.popleft()
            return first
        parts, room = [], self._max_text
        while room and self._waiting and isinstance(text := self._waiting[0], str):
            part = text[:room]
            parts.append(part)
            room -= len(part)
            self._size -= len(part)
            if len(part) < len(text):
                self._waiting[0] = text[len(part) :]
            else:
                self._waiting.popleft()
        return "".join(parts)

    def close(self) -> None:
        """Refuses further items and frees a blocked `put`. Items that are in can still be taken."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def _publication(self, type: str, data: Any) -> Publication:
        batch = Batch(self._announcer)
        batch.publish(data, type, channel=self._channel)
        return batch.publications[0]


def _size(content: str | Publication) -> int:
    return len(content) if isinstance(content, str) else len(content.body)
