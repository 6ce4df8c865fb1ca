"""What a client keeps from one connection to the next: the id of the last event, and the time to wait."""

from __future__ import annotations

from collections.abc import Callable

from .case import CURSOR, DELAY, LOST, Answer, Case, Request, message, stream


def echo(text: Callable[[Request], str], before: str = "") -> Answer:
    """Returns the answer that sends a text about the request in an event."""
    return lambda request: stream(f"{before}data: {text(request)}\n\n")


def asked(request: Request) -> str:
    """Returns the id of the last event that the client sent; "none" if it sent no id."""
    return request.query.get("last_event_id", "none")


IDS = (
    Case(
        "an id counts from its event on",
        (stream("data: a\n\nid: 1\ndata: b\n\ndata: c\n\n"),),
        (message("a"), message("b", "1"), message("c", "1"), LOST),
    ),
    Case(
        "an id may change",
        (stream("id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: c\n\n"),),
        (message("a", "1"), message("b", "2"), message("c", "2"), LOST),
    ),
    Case(
        "an empty id takes the id back",
        (stream("id: 1\ndata: a\n\nid:\ndata: b\n\ndata: c\n\n"),),
        (message("a", "1"), message("b"), message("c"), LOST),
    ),
    Case(
        "an id without a colon takes the id back",
        (stream("id: 1\ndata: a\n\nid\ndata: b\n\n"),),
        (message("a", "1"), message("b"), LOST),
    ),
    Case(
        "an id with NUL is passed over",
        (stream("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid: \0\0\ndata: c\n\n"),),
        (message("a", "1"), message("b", "1"), message("c", "1"), LOST),
    ),
    Case("the last id of an event counts", (stream("id: 1\nid: 2\ndata: a\n\n"),), (message("a", "2"), LOST)),
    Case("an id of spaces", (stream("id:  1 \ndata: a\n\n"),), (message("a", " 1 "), LOST)),
    Case(
        "names of the field id are compared exactly",
        (stream("ID: 1\nid : 2\ndata: a\n\n"),),
        (message("a"), LOST),
    ),
    Case(
        "an id without an event counts for the next event",
        (stream("id: 1\n\ndata: a\n\n"),),
        (message("a", "1"), LOST),
    ),
    Case(
        "the id of an event that was cut does not count",
        (stream("data: a\n\nid: e7\ndata: b"), echo(asked)),
        (message("a"), LOST, message("none"), LOST),
    ),
    Case(
        "the id is sent with the next connection",
        (stream("id: e7\ndata: a\n\n"), echo(asked)),
        (message("a", "e7"), LOST, message("e7", "e7"), LOST),
        differs=CURSOR,
    ),
    Case(
        "the id is kept over several connections",
        (stream("id: …\ndata: a\n\n"), echo(asked), echo(asked)),
        (message("a", "…"), LOST, message("…", "…"), LOST, message("…", "…"), LOST),
        differs=CURSOR,
    ),
    Case(
        "an empty id is not sent",
        (stream("id: e7\ndata: a\n\nid\ndata: b\n\n"), echo(asked)),
        (message("a", "e7"), message("b"), LOST, message("none"), LOST),
    ),
    Case("no id is sent with the first connection", (echo(asked),), (message("none"), LOST)),
    Case(
        "no id leads to a header of its own",
        (stream("id: e7\ndata: a\n\n"), echo(lambda request: request.headers.get("last-event-id", "none"))),
        (message("a", "e7"), LOST, message("none", "e7"), LOST),
        differs=CURSOR,
    ),
    Case(
        "the ids of events that nobody hears count",
        (stream("id: e7\nevent: sse.heartbeat\ndata: {}\n\n"), echo(asked)),
        (LOST, message("e7", "e7"), LOST),
    ),
)


def retries(name: str, body: str, limit: float) -> Case:
    """Returns the case of a stream after which the client waits for half of `limit`, since random numbers are
    0.5."""
    return Case(
        name,
        (stream(f"{body}data: a\n\n"),),
        (message("a"), LOST, ["waits", limit / 2]),
        differs=DELAY,
        waits=True,
        transports=("fetch",),
    )


RETRIES = (
    retries("retry is the time before the next connection", "retry: 2000\n", 2000),
    retries("retry is a decimal number", "retry: 02000\n", 2000),
    retries(
        "retry that has other characters is passed over",
        "retry: 2000\nretry: 1000x\nretry: x1\nretry: 1 0\n",
        2000,
    ),
    retries(
        "retry is no fraction and not negative",
        "retry: 2000\nretry: 1.5\nretry: -1\nretry: +1\nretry: 1e3\n",
        2000,
    ),
    retries("retry has digits of ASCII only", "retry: 2000\nretry: \u0661\nretry: \uff13\n", 2000),
    retries("an empty retry is passed over", "retry: 2000\nretry:\nretry\n", 2000),
    retries("retry without other spaces than one", "retry: 2000\nretry:  1000\n", 2000),
    retries("the last retry counts", "retry: 5000\nretry: 3000\n", 3000),
    retries("retry counts at once", "retry: 3000\n\n", 3000),
    retries("without retry the client has its own limit", "", 1),
)
