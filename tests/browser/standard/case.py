"""A case: what a server sends to each connection of a client, and what the client must report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: The rows of the table in docs/browser.md that says where PushClient differs from the standard.
AGAIN = "an answer that is not a stream"
NETWORK = "an answer that the browser hides from scripts"
DELAY = "the time until the next connection"
CURSOR = "how the id of the last event is sent"

#: A report: ["message", data, id], ["error", reason, status], ["waits", milliseconds], ["closed"].
Report = list[Any]


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case


class Reply(NamedTuple):
    """A server's answer. The server writes each piece of the body by itself."""

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    type: str | None = "text/event-stream"
    headers: Mapping[str, str] = {}
    stays: bool = False  # whether the stream stays open after the last piece


#: A reply, or a function that makes one from the request.
Answer = Reply | Callable[[Request], Reply]


class Case(NamedTuple):
    """One case. The client is closed after it has lost or been refused as many connections as `sends` has
    answers, or when the page's part of the case closes it."""

    name: str
    sends: tuple[Answer, ...]
    reports: tuple[Report, ...]
    #: The first cell of the row in docs/browser.md, if PushClient differs from the standard on purpose.
    differs: str = ""
    #: The options for PushClient.
    options: Mapping[str, Any] = {}
    #: The types that the client listens to.
    types: tuple[str, ...] = ("message",)
    #: "same", "other" for another origin; or an address of its own.
    origin: str = "same"
    #: Whether the client's waits are reported.
    waits: bool = False
    #: How many connections the client loses, if not as many as `sends` has answers.
    connections: int = 0
    #: The transports for which the case holds.
    transports: tuple[str, ...] = ("native", "fetch")


def stream(*pieces: str | bytes, **fields: Any) -> Reply:
    """Returns the answer that is a stream with this body."""
    return Reply(tuple(one.encode() if isinstance(one, str) else one for one in pieces), **fields)


def message(data: str, id: str = "", type: str = "message") -> Report:
    return [type, data, id]


LOST: Report = ["error", "lost", None]


def refused(status: int) -> Report:
    return ["error", "refused", status]
