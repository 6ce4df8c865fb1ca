"""The query of a stream: its channels, where it begins, and how the client wants its events."""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Request, request
from werkzeug.datastructures import Accept, MultiDict

from ..auth import tickets
from ..config import MAX_BATCH_MS
from ..errors import InvalidEvent
from ..history.position import StartPoint
from ..hub.batches import batch_wait
from ..protocol.channel import checked_channel
from ..protocol.cursor import MAX_LENGTH
from .refusal import bad_request

DEFAULT_CHANNEL = "sse"
#: Replaces a cursor that is too long. Like every unknown cursor, it gets an `sse.reset`.
_TOO_LONG = "?"
#: Parameters whose values many clients share. A query with others is not cached.
_COMMON = frozenset({"channels", "channel", "last", "tagged", "batch"})
_TICKET_BYTES = tickets.PARAMETER.encode()
#: Most queries in the cache, and the most bytes of one of them.
MAX_KEPT, MAX_KEPT_SIZE = 1024, 500


class StreamQuery(NamedTuple):
    """The parameters of one query."""

    channels: tuple[str, ...]
    names_channels: bool  # False: `channels` is the default
    start: StartPoint
    tagged: bool
    wait: float | None  # seconds that events may wait to share a chunk; None: the app's setting counts
    ticket: str | None

    def start_for(self, last_event_id: str | None) -> StartPoint:
        """Returns where the stream begins. The cursor in the header counts before the query's."""
        return _start_after(last_event_id) if last_event_id else self.start


class QueryCache:
    """Reads queries. Caches those that many clients share, because parsing one takes about 10 µs.

    :param max_channels: the most channels of a stream.
    """

    def __init__(self, max_channels: int) -> None:
        self._max_channels = max_channels
        self._known: dict[bytes, StreamQuery] = {}

    def of(self, request: Request) -> StreamQuery:
        """Returns the query of a request.

        :raises Refused: 400.
        """
        raw = request.query_string
        query = self._known.get(raw)
        if query is None:
            query = read(request.args, self._max_channels)
            if len(raw) <= MAX_KEPT_SIZE and request.args.keys() <= _COMMON:
                if len(self._known) >= MAX_KEPT:
                    self._known.clear()
                self._known[raw] = query
        return query


def read(args: MultiDict[str, str], max_channels: int) -> StreamQuery:
    """Returns the query with the parameters `args`.

    :raises Refused: 400.
    """
    return StreamQuery(
        channels(args, max_channels),
        any(args.getlist("channels")) or any(args.getlist("channel")),
        start(args),
        given(args, "tagged") == "1",
        batch(args),
        given(args, tickets.PARAMETER),
    )


def given(args: MultiDict[str, str], name: str) -> str | None:
    """Returns the first value of a parameter; None if it is missing."""
    return args[name] if name in args else None  # noqa: SIM401 (`get` raises and catches an exception of 1 µs)


def channels(args: MultiDict[str, str], most: int) -> tuple[str, ...]:
    """Returns the channels of `?channels=a,b` and `?channel=c`, each once; `sse` if the query names none.

    :raises Refused: 400, for a name that breaks the grammar or for more than `most` channels.
    """
    names = [name for value in args.getlist("channels") for name in value.split(",") if name]
    names += [value for value in args.getlist("channel") if value]
    unique = tuple(dict.fromkeys(names)) or (DEFAULT_CHANNEL,)
    if len(unique) > most:
        raise bad_request(f"the query names {len(unique)} channels, at most {most} are allowed on one stream")
    try:
        return tuple(checked_channel(name) for name in unique)
    except InvalidEvent as error:
        raise bad_request(f"channel {error.problem}") from error


def _start_after(cursor: str) -> StartPoint:
    """Returns the place after a cursor. An unknown or malformed cursor makes the stream get `sse.reset`."""
    return StartPoint(cursor if len(cursor) <= MAX_LENGTH else _TOO_LONG)


def start(args: MultiDict[str, str]) -> StartPoint:
    """Returns where the stream begins: after the query's cursor, else with the newest `?last=N` events.

    :raises Refused: 400, for a `last` that is no number.
    """
    cursor = given(args, "last_event_id") or given(args, "lastEventId")
    if cursor:
        return _start_after(cursor)
    last = given(args, "last")
    if last is None:
        return StartPoint()
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise bad_request(f"last is {last[:40]!r}, must be a number of events")
    return StartPoint(newest=int(last))


def batch(args: MultiDict[str, str]) -> float | None:
    """Returns the seconds that events may wait to share a chunk, from `?batch=<ms>`. 0 means no batching;
    None means that the app's setting counts.

    :raises Refused: 400, for anything but whole milliseconds up to MAX_BATCH_MS.
    """
    value = given(args, "batch")
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= MAX_BATCH_MS:
        return batch_wait(int(value))
    raise bad_request(f"batch is {value[:40]!r}, must be milliseconds from 0 to {MAX_BATCH_MS}")


def accepts_gzip(accepted: Accept) -> bool:
    """Whether a client prefers a compressed body, by its `Accept-Encoding`."""
    return accepted.best_match(("gzip", "identity")) == "gzip"


def hide_ticket(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Takes the ticket out of the URL that servers and error trackers log. Flask calls this before the view.

    The parameters are read before, so `request.args` keeps the ticket.

    :raises Refused: 400, for a query that is not UTF-8.
    """
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    raw = current.query_string
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise bad_request("the query is not UTF-8") from error
    may_have_ticket = _TICKET_BYTES in raw or b"%" in raw  # spares other requests parsing the query here
    if may_have_ticket and tickets.PARAMETER in current.args:
        environ = current.environ
        environ["QUERY_STRING"] = tickets.redacted_query(environ.get("QUERY_STRING", ""))
        current.query_string = environ["QUERY_STRING"].encode("latin-1")
        for key in ("RAW_URI", "REQUEST_URI"):
            if key in environ:
                environ[key] = tickets.redacted_url(environ[key])
