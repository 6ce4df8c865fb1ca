"""What a client asked for: channels and where to begin, read from the request's parts."""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Request, request
from werkzeug.datastructures import Accept, MultiDict

from ..auth import tickets
from ..config import MAX_BATCH_MS
from ..errors import ErrorCode, InvalidEvent, Refused
from ..history.position import StartPoint
from ..hub.batches import batch_wait
from ..protocol.channel import checked_channel
from ..protocol.cursor import MAX_LENGTH

DEFAULT_CHANNEL = "sse"
#: Stands for a cursor that is too long to be one: it is kept short, and answered like any unknown one.
_TOO_LONG = "?"
#: Parameters whose values many clients share.
_COMMON = frozenset({"channels", "channel", "last", "tagged", "batch"})
_TICKET_BYTES = tickets.PARAMETER.encode()
#: Queries remembered, and the longest one in bytes.
MAX_KEPT, MAX_KEPT_SIZE = 1024, 500


class StreamQuery(NamedTuple):
    """What a query asks for. `wait` is in seconds; None: as the app has it."""

    channels: tuple[str, ...]
    names_channels: bool  # else they are the default
    start: StartPoint
    tagged: bool
    wait: float | None
    ticket: str | None

    def start_for(self, last_event_id: str | None) -> StartPoint:
        """Where a request with that header begins: its cursor counts more than what the query says."""
        return _start_after(last_event_id) if last_event_id else self.start


class QueryCache:
    """Reads the queries of streams.

    Those that say nothing of their client are remembered: pages open the same ones again and again, and to
    take one apart costs about 10 µs.

    :param most: channels that a stream may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, StreamQuery] = {}

    def of(self, request: Request) -> StreamQuery:
        """What a request asks for.

        :raises Refused: 400.
        """
        raw = request.query_string
        asked = self._known.get(raw)
        if asked is None:
            asked = read(request.args, self._most)
            if len(raw) <= MAX_KEPT_SIZE and request.args.keys() <= _COMMON:
                if len(self._known) >= MAX_KEPT:
                    self._known.clear()
                self._known[raw] = asked
        return asked


def read(args: MultiDict[str, str], most: int) -> StreamQuery:
    """What the parameters of a query ask for.

    :raises Refused: 400.
    """
    return StreamQuery(
        channels(args, most),
        any(args.getlist("channels")) or any(args.getlist("channel")),
        start(args),
        given(args, "tagged") == "1",
        batch(args),
        given(args, tickets.PARAMETER),
    )


def given(args: MultiDict[str, str], name: str) -> str | None:
    """The first value of a parameter; None when it is not there."""
    return args[name] if name in args else None  # noqa: SIM401 (`get` raises and catches an exception of 1 µs)


def channels(args: MultiDict[str, str], most: int) -> tuple[str, ...]:
    """The channels of `?channels=a,b` and `?channel=c`, without repeats; `sse` when none is named.

    :raises Refused: 400, for a name outside the grammar or too many of them.
    """
    names = [name for value in args.getlist("channels") for name in value.split(",") if name]
    names += [value for value in args.getlist("channel") if value]
    unique = tuple(dict.fromkeys(names)) or (DEFAULT_CHANNEL,)
    if len(unique) > most:
        raise _bad(f"{len(unique)} channels were asked for, at most {most} are allowed on one stream")
    try:
        return tuple(checked_channel(name) for name in unique)
    except InvalidEvent as error:
        raise _bad(f"channel {error.problem}") from error


def _start_after(cursor: str) -> StartPoint:
    """To begin after a cursor of any kind: one that cannot be resumed from gets an `sse.reset`."""
    return StartPoint(cursor if len(cursor) <= MAX_LENGTH else _TOO_LONG)


def start(args: MultiDict[str, str]) -> StartPoint:
    """Where to begin: after the cursor of the query, else with the newest `?last=N` events.

    :raises Refused: 400, for a `last` that is not a number.
    """
    cursor = given(args, "last_event_id") or given(args, "lastEventId")
    if cursor:
        return _start_after(cursor)
    last = given(args, "last")
    if last is None:
        return StartPoint()
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise _bad(f"last is {last[:40]!r}, must be a number of events")
    return StartPoint(newest=int(last))


def batch(args: MultiDict[str, str]) -> float | None:
    """Seconds that events may wait for others, by `?batch=<ms>`; 0 is no batching, None: as the app has it.

    :raises Refused: 400, for anything but whole milliseconds up to MAX_BATCH_MS.
    """
    wish = given(args, "batch")
    if wish is None:
        return None
    if wish.isascii() and wish.isdigit() and len(wish) < 10 and int(wish) <= MAX_BATCH_MS:
        return batch_wait(int(wish))
    raise _bad(f"batch is {wish[:40]!r}, must be milliseconds from 0 to {MAX_BATCH_MS}")


def accepts_gzip(accepted: Accept) -> bool:
    """Whether a client would rather have its body compressed, by its `Accept-Encoding`."""
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
        raise _bad("the query is not UTF-8") from error
    may_have_ticket = _TICKET_BYTES in raw or b"%" in raw  # spares other requests parsing the query here
    if may_have_ticket and tickets.PARAMETER in current.args:
        environ = current.environ
        environ["QUERY_STRING"] = tickets.redacted_query(environ.get("QUERY_STRING", ""))
        current.query_string = environ["QUERY_STRING"].encode("latin-1")
        for key in ("RAW_URI", "REQUEST_URI"):
            if key in environ:
                environ[key] = tickets.redacted_url(environ[key])


def _bad(message: str) -> Refused:
    return Refused(400, ErrorCode.INVALID_FORMAT, message)
