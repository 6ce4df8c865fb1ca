"""What a producer yields, as events: text gathered into bigger pieces, everything else as it is.

The types of a run: `run.begin` {"run"}, `run.text` {"text"}, `run.item` (any JSON) or types of the producer's
own, and last `run.end` {"run", "status", "error"}.
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
#: Types that begin so are a run's own.
RESERVED = "run."

#: What a producer is: something to iterate over, or a function that returns it, called where it will run.
Items = Iterable[Any] | Callable[[], Iterable[Any]]

#: Characters, or for other items bytes, that wait for the broker before the producer must wait too.
MAX_WAITING = 100_000
#: The most bytes one character takes in JSON: two escapes `\\uXXXX`.
BYTES_PER_CHARACTER = 12
#: Bytes of JSON around the text.
AROUND = len('{"text":  ""}')


def event_of(item: Any) -> tuple[str, Any]:
    """Type and data of the event for one item that a producer yielded.

    A string is text; a pair that begins with a string is a type of the producer's own and data; anything else
    is data.

    :raises InvalidEvent: for a type that is a run's own.
    """
    if isinstance(item, str):
        return TEXT, {"text": item}
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        if item[0].startswith(RESERVED):
            raise InvalidEvent("type", f"{item[0]!r} begins with {RESERVED!r}, which is kept for runs")
        return item
    return ITEM, item


def end_data(run: str, status: str, error: str | None = None) -> dict[str, str | None]:
    """The data of the last event.

    :param status: `done`, `stopped` or `failed`.
    :param error: the name of what went wrong. Never a message: it may hold what readers should not see.
    """
    return {"run": run, "status": status, "error": error}


class Output:
    """What a producer has yielded and the broker has not got yet. One thread puts, one takes."""

    def __init__(self, announcer: MessageAnnouncer, channel: str, max_message: int) -> None:
        self._announcer = announcer
        self._channel = channel
        self._piece = max(1, (max_message - AROUND) // BYTES_PER_CHARACTER)
        self._room = threading.Condition()
        self._waiting: deque[str | Publication] = deque()
        self._size = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Any) -> bool:
        """Takes an item; waits while there is no room. False when nobody wants it any more.

        :raises InvalidEvent: when it cannot go on the wire.
        """
        type, data = event_of(item)
        entry: str | Publication = item if type == TEXT else self._publication(type, data)
        with self._room:
            while self._size >= MAX_WAITING and not self._closed:
                self._room.wait()
            if self._closed:
                return False
            if entry:
                self._waiting.append(entry)
                self._size += _size(entry)
            return True

    def take(self, most: int) -> list[Publication]:
        """Up to `most` events; strings that follow each other become one, as far as its size allows.

        :raises InvalidEvent: when text cannot go on the wire; it is dropped.
        """
        taken: list[Publication] = []
        left = len(self._waiting)  # what comes meanwhile waits for the next time, not to go out in crumbs
        while len(taken) < most and left > 0:
            with self._room:
                left -= len(self._waiting)
                entry = self._next()
                left += len(self._waiting)
                self._room.notify()
            if entry is None:
                break
            taken.append(self._publication(TEXT, {"text": entry}) if isinstance(entry, str) else entry)
        return taken

    def _next(self) -> str | Publication | None:
        """The next event's content. The caller holds the lock."""
        if not self._waiting or not isinstance(self._waiting[0], str):
            entry = self._waiting.popleft() if self._waiting else None
            self._size -= _size(entry) if entry else 0
            return entry
        parts, room = [], self._piece
        while room and self._waiting and isinstance(text := self._waiting[0], str):
            parts.append(text[:room])
            room -= len(parts[-1])
            self._size -= len(parts[-1])
            if len(parts[-1]) < len(text):
                self._waiting[0] = text[len(parts[-1]) :]
            else:
                self._waiting.popleft()
        return "".join(parts)

    def close(self) -> None:
        """Lets nothing more in; what is in it can still be taken."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def _publication(self, type: str, data: Any) -> Publication:
        batch = Batch(self._announcer)
        batch.publish(data, type, channel=self._channel)
        return batch.publications[0]


def _size(entry: str | Publication) -> int:
    return len(entry) if isinstance(entry, str) else len(entry.body)
