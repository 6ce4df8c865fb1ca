"""Reads the parameters of a request for a stream: channels, start, and how the client wants the events."""

from __future__ import annotations

import re
from typing import NamedTuple

from flask import Request
from werkzeug.datastructures import Accept, MultiDict

from ..auth import tickets
from ..config import MAX_BATCH_MS
from ..errors import InvalidEvent
from ..history.position import StartPoint
from ..hub.batches import batch_wait
from ..protocol.channel import checked_channel
from ..protocol.cursor import MAX_LENGTH
from ..protocol.frames import PLAIN, RESETS
from .parameters import parameters_of
from .refusal import bad_request

DEFAULT_CHANNEL = "sse"
#: The values of the parameter `events`.
DIALECTS = (PLAIN, *RESETS)
#: Replaces a cursor that is too long. As for every unknown cursor, the client then gets an `sse.reset`.
_TOO_LONG = "?"
#: Parameters that often have the same values for many clients. A query with other parameters is not cached.
_COMMON = frozenset({"channels", "channel", "last", "tagged", "batch", "events", "poll"})
#: At most how many seconds a short stream may wait for an event. Many proxies give up after 60 seconds.
MAX_POLL = 55
#: A short stream that waits fewer seconds than this asks the broker for new events when it begins. Other
#: short streams wait long enough for the events that are on their way to the worker.
ASK_BELOW = 1
_SECONDS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,9})?")
_TICKET_BYTES = tickets.PARAMETER.encode()
#: Limits of the cache. The first number: at most how many queries are cached. The second number: a query with
#: more bytes is not cached.
MAX_KEPT, MAX_KEPT_SIZE = 128, 500


class StreamQuery(NamedTuple):
    """The parameters of one request for a stream, from its query and, for `POST`, from its body."""

    channels: tuple[str, ...]
    names_channels: bool  # False if the request names no channel; `channels` is then the default channel
    start: StartPoint  # where the stream starts, if the request has no Last-Event-ID
    tagged: bool  # whether the client wants each event with the names of its channels
    wait: float | None  # how long events may wait to share a chunk, in seconds; None: the app's setting
    ticket: str | None
    dialect: str  # how the server writes its own events: a value in `DIALECTS`, or ""
    poll: float | None  # how long a short stream waits for an event, in seconds; None: not short

    def start_for(self, last_event_id: str | None) -> StartPoint:
        """Returns where the stream starts: at the cursor in the header Last-Event-ID, else as the query says.

        :param last_event_id: the value of the header; None if the request has no such header.
        """
        return _start_after(last_event_id, self.start.asks_broker) if last_event_id else self.start


class QueryCache:
    """Parses queries. Caches the queries that many clients share, because parsing takes about 10 µs.

    :param max_channels: at most this many channels are allowed on one stream.
    """

    def __init__(self, max_channels: int) -> None:
        self._max_channels = max_channels
        self._known: dict[bytes, StreamQuery] = {}

    def of(self, request: Request) -> StreamQuery:
        """Returns the parsed query of a request, for `POST` together with its body.

        :raises Refused: 400, if a parameter is not valid; 411, 413 or 415, if the body is not valid.
        """
        if request.method == "POST":
            return read(parameters_of(request), self._max_channels)
        raw = request.query_string
        query = self._known.get(raw)
        if query is None:
            query = read(request.args, self._max_channels)
            if len(raw) <= MAX_KEPT_SIZE and request.args.keys() <= _COMMON:
                if len(self._known) >= MAX_KEPT:
                    self._known.clear()
                self._known[raw] = query
        return query


def all_parameters_of(request: Request) -> MultiDict[str, str]:
    """Returns the parameters in the query of a request, for `POST` together with those in its body.

    :raises Refused: 400, 411, 413 or 415, if the body is not valid.
    """
    return parameters_of(request) if request.method == "POST" else request.args


def read(args: MultiDict[str, str], max_channels: int) -> StreamQuery:
    """Parses the parameters `args` of a request.

    :raises Refused: 400, if a parameter is not valid.
    """
    seconds = poll(args)
    return StreamQuery(
        channels(args, max_channels),
        any(args.getlist("channels")) or any(args.getlist("channel")),
        start(args, seconds),
        given(args, "tagged") == "1",
        batch(args),
        given(args, tickets.PARAMETER),
        dialect(args),
        seconds,
    )


def given(args: MultiDict[str, str], name: str) -> str | None:
    """Returns the first value of a parameter; None if the query does not have the parameter."""
    return args[name] if name in args else None  # noqa: SIM401 (for a missing name, `get` takes 1 µs longer)


def channels(args: MultiDict[str, str], most: int) -> tuple[str, ...]:
    """Returns the channels that a query names as `?channels=a,b` or `?channel=c`, without duplicates.

    Returns the channel `sse` if the query names no channel.

    :raises Refused: 400, if a channel's name is not valid, or if there are more than `most` channels.
    """
    names = [name for value in args.getlist("channels") for name in value.split(",") if name]
    names += [value for value in args.getlist("channel") if value]
    unique = tuple(dict.fromkeys(names)) or (DEFAULT_CHANNEL,)
    if len(unique) > most:
        raise bad_request(
            f"the request names {len(unique)} channels, at most {most} are allowed on one stream"
        )
    try:
        return tuple(checked_channel(name) for name in unique)
    except InvalidEvent as error:
        raise bad_request(f"channel {error.problem}") from error


def _start_after(cursor: str, asks_broker: bool) -> StartPoint:
    """Returns the start point after a cursor. An unknown or malformed cursor leads to an `sse.reset`."""
    return StartPoint(cursor if len(cursor) <= MAX_LENGTH else _TOO_LONG, None, asks_broker)


def start(args: MultiDict[str, str], poll: float | None = None) -> StartPoint:
    """Returns where the stream starts, as the query says.

    With `?last_event_id=<cursor>` the stream starts after the cursor. With `?last=N` it starts with the N
    newest events. Without both it starts with the next event.

    :param poll: how long a short stream waits for an event, in seconds; None if the stream is not short.
    :raises Refused: 400, if `last` is not a number.
    """
    asks_broker = poll is not None and poll < ASK_BELOW
    cursor = given(args, "last_event_id") or given(args, "lastEventId")
    if cursor:
        return _start_after(cursor, asks_broker)
    last = given(args, "last")
    if last is None:
        return StartPoint(asks_broker=asks_broker)
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise bad_request(f"last is {last[:40]!r}, must be a number of events")
    return StartPoint(None, int(last), asks_broker)


def batch(args: MultiDict[str, str]) -> float | None:
    """Returns how long events may wait to share a chunk, in seconds, from the parameter `?batch=<ms>`.

    0 means that events do not wait. None means that the query has no such parameter, and the app's setting
    decides.

    :raises Refused: 400, if the value is not a whole number of milliseconds from 0 to MAX_BATCH_MS.
    """
    value = given(args, "batch")
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= MAX_BATCH_MS:
        return batch_wait(int(value))
    raise bad_request(f"batch is {value[:40]!r}, must be milliseconds from 0 to {MAX_BATCH_MS}")


def dialect(args: MultiDict[str, str]) -> str:
    """Returns the dialect that the client asks for, such as `?events=plain`; "" if it asks for none.

    :raises Refused: 400, if the parameter has any other value.
    """
    value = given(args, "events")
    if value is None:
        return ""
    if value not in DIALECTS:
        raise bad_request(f"events is {value[:40]!r}, must be one of {', '.join(DIALECTS)}, or not be given")
    return value


def poll(args: MultiDict[str, str]) -> float | None:
    """Returns how long a short stream waits for an event, in seconds, from the parameter `?poll=<seconds>`.

    Returns None if the query has no such parameter: the client asks for a stream that stays open.

    :raises Refused: 400, if the value is not a number of seconds from 0 to MAX_POLL.
    """
    value = given(args, "poll")
    if value is None:
        return None
    if _SECONDS.fullmatch(value) and float(value) <= MAX_POLL:
        return float(value)
    raise bad_request(f"poll is {value[:40]!r}, must be seconds from 0 to {MAX_POLL}")


def accepts_gzip(accepted: Accept) -> bool:
    """Returns whether a client prefers a gzip-compressed body, as its `Accept-Encoding` header says."""
    return accepted.best_match(("gzip", "identity")) == "gzip"


def hide_ticket(current: Request) -> None:
    """Replaces the ticket in the request's URL with `***`, so that gunicorn's access log does not show it.

    Called before the app's hooks and the view, but after all WSGI middlewares: a tracer that wraps the app,
    such as Sentry, has read the ticket by then. `request.args` is read before the ticket is replaced, so
    `request.args` still has the ticket.

    :raises Refused: 400, if the query is not UTF-8.
    """
    raw = current.query_string
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise bad_request("the query is not UTF-8") from error
    may_have_ticket = _TICKET_BYTES in raw or b"%" in raw  # a fast check of the raw bytes
    if may_have_ticket and tickets.PARAMETER in current.args:
        environ = current.environ
        environ["QUERY_STRING"] = tickets.redacted_query(environ.get("QUERY_STRING", ""))
        current.query_string = environ["QUERY_STRING"].encode("latin-1")
        for key in ("RAW_URI", "REQUEST_URI"):
            if key in environ:
                environ[key] = tickets.redacted_url(environ[key])
