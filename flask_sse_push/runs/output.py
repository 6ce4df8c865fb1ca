"""The events of one run that wait to be published. Texts are joined into fewer events, and so are pieces of
reasoning; other items are not.

The event types of a run, with the keys of their data:

- `run.begin` {"run"}
- `run.text` {"text"}
- `run.item` (any JSON)
- types that the producer chooses
- at the end `run.end` {"run", "status", "error"}
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..brokers import forks
from ..brokers.announcer import Batch, MessageAnnouncer
from ..errors import InvalidEvent, MessageTooLarge
from ..protocol.channel import plain_str
from ..protocol.data import flask_dumps
from ..protocol.entry import Publication
from .items import Reasoning, check, reasoning_of

BEGIN = "run.begin"
TEXT = "run.text"
ITEM = "run.item"
END = "run.end"
#: The prefix of event types that only this package may use. Producers must not use such types.
RESERVED = "run."

#: The producer that an app passes: an iterable, or a function that returns an iterable. The function is
#: called in the thread of the run.
Items = Iterable[Any] | Callable[[], Iterable[Any]]

#: The producer must wait while the queue has at least this size. The size is the number of characters of all
#: texts in the queue, plus the number of bytes of all other events.
MAX_WAITING = 100_000
#: An event with text is full if its bytes reach this share of SSE_PUSH_MAX_MESSAGE.
FULL = 3 / 4
#: How many bytes the JSON of an event with text or reasoning has without the text.
AROUND = len('{"text": ""}')


def event_of(item: Any) -> tuple[str, Any]:
    """Returns the type and the data of the event for one item that a producer yielded.

    A string becomes a `run.text` event. A pair whose first value is a string is an event type, chosen by the
    producer, and its data. Any other item becomes the data of a `run.item` event.

    :raises InvalidEvent: if the producer chose a type with the prefix `run.`, or if an item in the neutral
        form lacks a field.
    """
    if isinstance(item, str):
        return TEXT, {"text": item}
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        if item[0].startswith(RESERVED):
            raise InvalidEvent("type", f"{item[0]!r} has the prefix {RESERVED!r}, which is kept for runs")
        return item
    check(item)
    return ITEM, item


def end_data(run: str, status: str, error: str | None = None) -> dict[str, str | None]:
    """Returns the data of `run.end`, the last event of a run.

    :param run: the id of the run.
    :param status: `done`, `stopped` or `failed`.
    :param error: the class name of the error. Its message is never sent, because it may contain secrets.
    """
    return {"run": run, "status": status, "error": error}


class Output:
    """A queue of the events of one run. The run's thread calls `put`, the publishing thread calls `take`.

    :param announcer: writes the items that are no text as JSON, as the app does.
    :param max_message: the size limit of one event, in bytes.
    """

    def __init__(self, announcer: MessageAnnouncer, channel: str, max_message: int) -> None:
        self._announcer = announcer
        # `take` runs in the publishing thread of all runs. So it must not call the app's own JSON encoder.
        self._text_announcer = announcer.with_dumps(flask_dumps)
        self._channel = channel
        self._full = FULL * max_message
        # Each character takes at least one byte, so no event can have more characters of text than this.
        self._max_text = max(1, max_message - AROUND)
        self._room = threading.Condition()
        self._waiting: deque[str | Publication] = deque()
        self._size = 0  # total size of `_waiting`, compared with MAX_WAITING
        self._count = 0  # how many items the generator has yielded
        self._closed = False
        forks.watch(self)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Any) -> bool:
        """Adds an item. Blocks while the queue is full. Returns False if the queue is closed.

        :raises InvalidEvent: if the item cannot be sent as an event. A note of the error names the item.
        """
        self._count += 1
        try:
            content = self._content(item)
        except InvalidEvent as error:
            error.add_note(f"The run failed at item {self._count} of its generator, {_name(item)}.")
            raise
        with self._room:
            while self._size >= MAX_WAITING and not self._closed:
                self._room.wait()
            if self._closed:
                return False
            if content:
                self._waiting.append(content)
                self._size += _size(content)
            return True

    def _content(self, item: Any) -> str | Publication:
        """Returns the text of an item, or the event of an item that is no text.

        :raises InvalidEvent: if the item cannot be sent as an event.
        """
        type, data = event_of(item)
        content = plain_str(item) if type == TEXT else reasoning_of(item)
        return self._publication(self._announcer, type, data) if content is None else content

    def take(self, limit: int) -> list[Publication]:
        """Removes at most `limit` events and returns them. Strings in a row become one event if they fit.

        :raises InvalidEvent: if text cannot be sent as an event; the text is then dropped.
        """
        taken: list[Publication] = []
        left = len(self._waiting)  # items added from now on wait for the next call
        while len(taken) < limit and left > 0:
            with self._room:
                left -= len(self._waiting)
                content = self._next()
                left += len(self._waiting)
                self._room.notify()
            if isinstance(content, str):
                content, rest = self._text_event(content)
                left += self._put_back(rest)
            taken.append(content)
        return taken

    def _text_event(self, text: str) -> tuple[Publication, str]:
        """Returns an event with as much of the beginning of `text` as fits, and the rest of `text`.

        A character takes 1 to 12 bytes of JSON. So the method searches the number of characters that fit.
        """
        kind = type(text)
        found: tuple[Publication, str] | None = None
        least, most = 1, len(text)
        count = most
        while least <= most:
            try:
                event = self._publication(self._text_announcer, *piece_event(kind, text[:count]))
            except MessageTooLarge:
                if count == 1:
                    raise
                most = count - 1
            else:
                found = event, kind(text[count:])
                if len(event.body) >= self._full:
                    break
                least = count + 1
            count = (least + most) // 2
        assert found is not None  # a single character fits or raises
        return found

    def _put_back(self, rest: str) -> bool:
        """Puts text back to the beginning of the queue. Returns whether there is any."""
        with self._room:
            if rest:
                self._waiting.appendleft(rest)
                self._size += len(rest)
        return bool(rest)

    def _next(self) -> str | Publication:
        """Removes the content of the next event and returns it. The caller must hold `_room`."""
        first = self._waiting[0]
        if not isinstance(first, str):
            self._size -= _size(first)
            self._waiting.popleft()
            return first
        parts, room, kind = [], self._max_text, type(first)
        while room and self._waiting and type(text := self._waiting[0]) is kind:
            part = text[:room]
            parts.append(part)
            room -= len(part)
            self._size -= len(part)
            if len(part) < len(text):
                self._waiting[0] = kind(text[len(part) :])
            else:
                self._waiting.popleft()
        return kind("".join(parts))

    def after_fork(self) -> None:
        """Closes the queue, so that a generator that has forked ends in the child. Called in the child."""
        self._closed = True

    def close(self) -> None:
        """Closes the queue. A blocked `put` returns at once. `take` still returns the items in the queue."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def _publication(self, announcer: MessageAnnouncer, type: str, data: Any) -> Publication:
        batch = Batch(announcer)
        batch.publish(data, type, channel=self._channel)
        return batch.publications[0]


def piece_event(kind: type[str], text: str) -> tuple[str, dict[str, str]]:
    """Returns the type and the data of the event for text or reasoning."""
    return (ITEM, {"type": "reasoning", "text": text}) if kind is Reasoning else (TEXT, {"text": text})


def _name(item: Any) -> str:
    """Returns the kind of an item for an error. Shows nothing of its data, which may be secret."""
    kind = (
        item.get("type") if isinstance(item, dict) else item[0] if isinstance(item, tuple) and item else None
    )
    return f"of the type {kind[:40]!r}" if isinstance(kind, str) else f"a {type(item).__name__}"


def _size(content: str | Publication) -> int:
    return len(content) if isinstance(content, str) else len(content.body)
