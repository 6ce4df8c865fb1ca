"""What apps use that were written for the package Flask-SSE. docs/from-flask-sse.md says what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from flask import json

from ..protocol.event import checked_once, make_event


@dataclass
class Message:
    """An event of the package Flask-SSE, for views that write streams of their own: `yield str(message)`."""

    data: Any
    type: str | None = None
    id: str | None = None
    retry: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the data, and the other fields that are set."""
        others = {"type": self.type, "id": self.id, "retry": self.retry}
        return {"data": self.data, **{name: value for name, value in others.items() if value}}

    def __str__(self) -> str:
        """Returns the lines of the event in an event stream (WHATWG HTML, section 9.2.5).

        :raises InvalidEvent: if a field is invalid; the message names the field.
        """
        text = self.data if isinstance(self.data, str) else json.dumps(self.data)
        head = f"id: {checked_once(self.id)}\n" if self.id else ""
        return head + make_event(text, self.type or None, retry=self.retry or None).encode().decode()


class Gone:
    """An attribute of Flask-SSE's blueprint that does not exist here. Its use raises AttributeError.

    :param instead: what to use instead.
    """

    def __init__(self, instead: str) -> None:
        self._instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, blueprint: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"the blueprint has no attribute {self._name!r}, other than in Flask-SSE; {self._instead}; "
            "see docs/from-flask-sse.md"
        )
