"""Parses the bytes of an event stream into events, as browsers do (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

from ..protocol.data import PACKED, unmarked
from ..protocol.event import RESERVED

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """One event, as a browser passes it to a handler."""

    type: str = "message"
    data: str = ""  #: the text of the data, without the mark of JSON (docs/protocol.md)
    id: str = ""  #: the event's cursor
    retry_ms: int | None = None  #: the reconnection time that came with the event, in milliseconds
    is_json: bool = False  #: whether the data is JSON, because the app published no string
    #: whether the data is an envelope that the app's process has packed: `payload.decompress(event.json())`
    #: unpacks it, as PushClient does
    is_compressed: bool = False

    def json(self) -> Any:
        """Returns the data parsed as JSON. Raises ValueError if the data is not JSON."""
        return json.loads(self.data)

    @property
    def is_control(self) -> bool:
        """Whether the event belongs to the protocol: its type begins with `sse.`."""
        return self.type.startswith(RESERVED)


class Parser:
    """Parses a stream from chunks that may end anywhere. `comments` collects the stream's comment lines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest = ""
        self._fields: dict[str, list[str]] = {}
        self._id = ""
        self._retry_ms: int | None = None
        self.comments: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Returns the events whose end is in `chunk`."""
        text = self._rest + self._decoder.decode(chunk)
        # A CR at the end may be the first half of a CRLF.
        held = "\r" if text.endswith("\r") else ""
        *lines, rest = _LINE_END.split(text.removesuffix("\r") if held else text)
        self._rest = rest + held
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry_ms = int(value)
        elif name in ("data", "event"):
            self._fields.setdefault(name, []).append(value)
        return None

    def _dispatch(self) -> Event | None:
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        retry_ms, self._retry_ms = self._retry_ms, None
        type = fields.get("event", [""])[-1] or "message"
        text = "\n".join(fields["data"])
        data, is_marked = unmarked(text)
        is_json = is_marked or type.startswith(RESERVED)
        return Event(type, data, self._id, retry_ms, is_json, is_marked and text.endswith(PACKED))
