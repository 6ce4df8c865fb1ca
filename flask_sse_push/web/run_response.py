"""The response that sends a run in the format of a front end. It is a stream of the hub, like any other."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flask import Request, Response

from ..errors import InvalidEvent
from ..history.position import StartPoint
from ..protocol.cursor import EARLIEST, Cursor, parse
from ..protocol.data import Dumps
from ..protocol.shard_cursor import StreamCursor
from ..runs.formats import writer_class
from ..runs.formats.body import FormatBody
from ..runs.formats.encoder import RunEncoder
from ..runs.output import Items
from ..runs.response import run_body
from ..runs.run import Run, run_channel
from .response import StreamResponse
from .stream import HEADERS, StreamEndpoint

#: A cursor that is more than this many microseconds ahead of the worker's position is no cursor of a run.
AHEAD = 3_600_000_000


def respond_items(items: Items, format: str, dumps: Dumps) -> StreamResponse:
    """Returns a response that sends the items of a generator to one client; see `SSEBlueprint.stream`."""
    writer = writer_class(format)
    return StreamResponse(run_body(items, FormatBody(writer, dumps)), {**HEADERS, **writer.headers})


def respond_run(endpoint: StreamEndpoint, request: Request, run: Run, format: str) -> StreamResponse:
    """Returns the response; see `Run.response`."""
    return _respond(endpoint, request, run.key, run.ids, format, run.cursor)


def resume_run(endpoint: StreamEndpoint, request: Request, key: str, format: str) -> Response:
    """Returns a response with the run under way; see `SSEBlueprint.resume`."""
    writer_class(format)  # raises ValueError if there is no such format
    try:
        run_channel(key)
    except InvalidEvent:  # no run can have this key, which may come from the client
        return Response(status=204)
    with endpoint.needs_broker():
        ids = endpoint.services.streaming.runs.under_way(key)
    if not ids:
        return Response(status=204)
    return _respond(endpoint, request, key, ids, format, EARLIEST)


def _seen(request: Request, position: StreamCursor | None) -> Cursor | None:
    """Returns the cursor of the newest event that the client has; None if it has none.

    The cursor may be ahead of this worker, because another worker may have sent the client newer events. A
    cursor that is more than `AHEAD` microseconds ahead counts as none.
    """
    seen = parse(request.headers.get("Last-Event-ID", ""))
    newest = position.id if isinstance(position, Cursor) else round(time.time() * 1_000_000)
    return None if seen is None or seen.id > newest + AHEAD else seen


def _respond(
    endpoint: StreamEndpoint, request: Request, key: str, ids: Sequence[str], format: str, cursor: str
) -> StreamResponse:
    writer = writer_class(format)
    channel = run_channel(key)
    begun = parse(cursor) if cursor != EARLIEST else None
    hub = endpoint.services.streaming.hub
    seen = _seen(request, hub.position())
    stream = endpoint.vouched_stream(request, channel)
    stream.encoder = RunEncoder(writer, channel, key, ids, begun, seen)
    recovery = hub.recovery(stream.subscribed, StartPoint(cursor))
    recovery.boundary = 0 if seen is None else seen.id
    response = endpoint.respond(request, stream, recovery)
    response.headers.update(writer.headers)
    return response
