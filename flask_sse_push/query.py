"""What a client asked for: channels and where to begin, read from the request's parts."""

from __future__ import annotations

from werkzeug.datastructures import Accept, MultiDict

from . import batching
from .config import MAX_BATCH_MS
from .cursor import MAX_LENGTH
from .errors import ErrorCode, InvalidEvent, Refused
from .event import checked_channel
from .resume import Start

DEFAULT_CHANNEL = "sse"
#: Stands for a cursor that is too long to be one: it is kept short, and answered like any unknown one.
_TOO_LONG = "?"


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


def names_channels(args: MultiDict[str, str]) -> bool:
    """Whether the query names any channel."""
    return any(args.getlist("channels")) or any(args.getlist("channel"))


def start(args: MultiDict[str, str], last_event_id: str | None) -> Start:
    """Where to begin: the cursor of the header, else of the query, else the newest `?last=N` events.

    A cursor of any kind is accepted here: one that cannot be resumed from gets an `sse.reset`.

    :raises Refused: 400, for a `last` that is not a number.
    """
    cursor = last_event_id or given(args, "last_event_id") or given(args, "lastEventId")
    if cursor:
        return Start(cursor if len(cursor) <= MAX_LENGTH else _TOO_LONG)
    last = given(args, "last")
    if last is None:
        return Start()
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise _bad(f"last is {last[:40]!r}, must be a number of events")
    return Start(newest=int(last))


def tagged(args: MultiDict[str, str]) -> bool:
    """Whether each event is to name its channels in a field `channel:`; `?tagged=1` asks for it."""
    return given(args, "tagged") == "1"


def batch(args: MultiDict[str, str]) -> float | None:
    """Seconds that events may wait for others, by `?batch=<ms>`; 0 is no batching, None: as the app has it.

    :raises Refused: 400, for anything but whole milliseconds up to MAX_BATCH_MS.
    """
    wish = given(args, "batch")
    if wish is None:
        return None
    if wish.isascii() and wish.isdigit() and len(wish) < 10 and int(wish) <= MAX_BATCH_MS:
        return batching.step(int(wish))
    raise _bad(f"batch is {wish[:40]!r}, must be milliseconds from 0 to {MAX_BATCH_MS}")


def accepts_gzip(accepted: Accept) -> bool:
    """Whether a client would rather have its body compressed, by its `Accept-Encoding`."""
    return accepted.best_match(("gzip", "identity")) == "gzip"


def _bad(message: str) -> Refused:
    return Refused(400, ErrorCode.INVALID_FORMAT, message)
