"""What all formats have in common: a run's items in order, and which part is open."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from .. import items
from ..output import ITEM, TEXT
from ..producer import DONE, STOPPED

#: Writes a value as JSON without spaces.
compact = json.JSONEncoder(separators=(",", ":")).encode

#: The line that ends a stream in most formats.
DONE_MARK = "[DONE]"


class RunFacts(NamedTuple):
    """What a format may say about the run itself."""

    key: str
    id: str
    began: int  # Unix time in seconds


class Writer(ABC):
    """Turns the items of one run into the JSON objects of a format.

    Each method returns the objects to send now. Their content depends only on the items so far, so that all
    workers write the same. What a format cannot say is left out.
    """

    #: Headers of the response besides those of every stream.
    headers: ClassVar[Mapping[str, str]] = {}
    #: A last line of data that is no JSON; None if the format has none.
    done_mark: ClassVar[str | None] = DONE_MARK

    def __init__(self, run: RunFacts) -> None:
        self.run = run
        self._open: str | None = None  # the kind of the open part: `text`, `reasoning` or None
        self._parts = 0  # how many parts have begun
        self._calls: set[str] = set()  # ids of the tool calls so far

    @property
    def part(self) -> str:
        """The id of the newest part, the same on each worker."""
        return f"{self.run.id}-{self._parts}"

    def item(self, type: str, data: Any) -> list[Any]:
        """Writes one event of the run, except its first and its last one."""
        if type == TEXT and isinstance(data, Mapping) and isinstance(data.get("text"), str):
            return self._piece("text", data["text"])
        kind = items.kind_of(data) if type == ITEM and items.problem(data) is None else None
        if kind is None:  # an event or an item that only the app's own page knows
            if type == ITEM:
                items.note_left_out(data)
            return []
        if kind == "reasoning":
            return self._piece(kind, data["text"])
        if kind == "tool_call":
            self._calls.add(data["id"])
        elif kind == "tool_result" and data["id"] not in self._calls:  # clients fail if they miss the call
            return []
        written = self.other(kind, data)
        return [*self.close_part(), *written] if written else []

    def end(self, status: str, error: str | None) -> list[Any]:
        """Writes the end of the run.

        :param status: `done`, `stopped` or `failed`.
        :param error: the name of the exception if the run has failed.
        """
        if status == DONE:
            return [*self.close_part(), *self.finished()]
        if status == STOPPED:
            return [*self.close_part(), *self.stopped()]
        return self.fail(f"the run failed: {error}", error or "Error")

    def fail(self, message: str, code: str) -> list[Any]:
        """Writes an error as the end: the run has failed, or the client cannot get the rest of the run."""
        return [*self.close_part(), *self.failed(message, code)]

    def _piece(self, kind: str, text: str) -> list[Any]:
        if not text:
            return []
        before: list[Any] = []
        if self._open != kind:
            before = self.close_part()
            self._parts += 1
            self._open = kind
            before += self.part_begins(kind)
        return [*before, *self.piece(kind, text)]

    def mark(self) -> bytes:
        """Returns the bytes that end the stream; b"" if the format has none."""
        return b"" if self.done_mark is None else f"data: {self.done_mark}\n\n".encode()

    def close_part(self) -> list[Any]:
        """Writes the end of the open part, if there is one."""
        kind, self._open = self._open, None
        return [] if kind is None else self.part_ends(kind)

    # -- what each format defines ------------------------------------------------------------------------

    @abstractmethod
    def begin(self) -> list[Any]:
        """Writes the beginning of the run."""

    @abstractmethod
    def piece(self, kind: str, text: str) -> list[Any]:
        """Writes text that belongs to the open part. `kind` is `text` or `reasoning`."""

    def part_begins(self, kind: str) -> list[Any]:
        """Writes the beginning of a part of text or reasoning."""
        return []

    def part_ends(self, kind: str) -> list[Any]:
        """Writes the end of a part of text or reasoning."""
        return []

    @abstractmethod
    def other(self, kind: str, item: Mapping[str, Any]) -> list[Any]:
        """Writes an item that is neither text nor reasoning; see `items.FIELDS`. [] leaves the item out."""

    @abstractmethod
    def finished(self) -> list[Any]:
        """Writes that the run has ended well."""

    @abstractmethod
    def stopped(self) -> list[Any]:
        """Writes that the run was stopped with `sse.stop`."""

    @abstractmethod
    def failed(self, message: str, code: str) -> list[Any]:
        """Writes that the run has failed, or that its rest cannot be read.

        :param code: one word: the name of an exception, or the reason for which the stream was closed.
        """


def written(objects: Sequence[Any], cursor: str = "") -> bytes:
    """Returns one event without a type for each object. The last one has the cursor as its id."""
    events = [f"data: {compact(each)}\n\n" for each in objects]
    if events and cursor:
        events[-1] = f"id: {cursor}\n{events[-1]}"
    return "".join(events).encode()
