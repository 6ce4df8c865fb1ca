"""The door: the way of a request to its stream, and what those are told who do not get in."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from flask import Flask, Request, Response, jsonify, request
from werkzeug.datastructures import Headers

from . import logs, tickets
from .admission import Admission, Grant, Hooks
from .auth import refused_token
from .config import Settings
from .errors import BrokerUnavailable, ErrorCode, Refused, error_body
from .http_encoding import GzipStream
from .hub import Hub
from .query import Asked, Queries, accepts_gzip
from .runtime import Runtime
from .signals import StreamSignals
from .transports import StreamSink, stream
from .wire import GZIP_HEADERS, HEADERS, NEGOTIATED_HEADERS, jittered_ms

_PLAIN, _NEGOTIATED, _GZIP = (
    tuple(headers.items()) for headers in (HEADERS, NEGOTIATED_HEADERS, GZIP_HEADERS)
)


class StreamResponse(Response):
    """A response without a length or a location to work out: its headers go out as they are."""

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers

    def iter_encoded(self) -> Iterator[bytes]:
        return self.response  # type: ignore[return-value]


class Door:
    """What one app serves the streams of one blueprint by. Making it opens nothing."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self.admission = Admission(app, settings, hooks)
        self._queries = Queries(settings.max_channels)
        self.runtime = Runtime(settings, app.json.dumps, StreamSignals(app), self.admission.judge)

    @property
    def settings(self) -> Settings:
        """The settings of this moment."""
        return self.runtime.settings

    def begin_anew(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes what runs, and goes on with other settings; see `Runtime.begin_anew`."""
        self.admission.settings = settings
        self._queries = Queries(settings.max_channels)
        self.runtime.begin_anew(settings, clock)

    # -- coming in ---------------------------------------------------------------------------------------

    def open(self, request: Request) -> StreamResponse:
        """The response whose body is the stream. It counts as open from the body's first step on.

        May block, as the app's hooks do, and for the counts of other workers.

        :raises Refused: 400, 401, 403, 429 or 503.
        """
        runtime = self.runtime
        hub, quotas, places = runtime.hub, runtime.quotas, runtime.places()
        if len(hub) >= places:  # before anybody is looked up
            raise self._full()
        address = quotas.address(request.remote_addr)
        quotas.admit("address", address)
        asked = self._queries.of(request)
        grant = self.admission.grant(request, asked)
        user_id = grant.identity.user_id
        quotas.admit("user", user_id)
        sink = self._sink(request, grant, user_id, asked)
        start = asked.start_for(request.environ.get("HTTP_LAST_EVENT_ID"))
        way = hub.way(sink.subscribed, start)
        if len(hub) >= (runtime.request_places(places) if sink.holds_request else places):
            raise self._full()
        headers = Headers()
        headers[:] = self._encode(sink, request)  # a third of what it costs to give them to `Headers`
        if request.method != "HEAD":
            self._take_place(sink, grant, address)
        response = StreamResponse(stream(hub, sink, way, self.settings), headers=headers)
        if sink.hold is not None:
            response.call_on_close(partial(_give_back_unused, sink, hub))
        return response

    def _sink(self, request: Request, grant: Grant, user_id: str | None, asked: Asked) -> StreamSink:
        connection = secrets.token_hex(8)
        sink = self.runtime.transports.sink(request.environ, connection, user_id, grant.channels)
        sink.grant = grant if grant.can_change(self.settings) else None
        sink.tagged, sink.wait = asked.tagged, asked.wait
        of_streams = self.admission.secrets()
        if of_streams is not None:
            sink.secret = of_streams.of(connection, user_id)
        return sink

    def _encode(self, sink: StreamSink, request: Request) -> tuple[tuple[str, str], ...]:
        """The headers of the stream, which is compressed when its client would have it so."""
        if not self.settings.http_compression:
            return _PLAIN
        if not accepts_gzip(request.accept_encodings):
            return _NEGOTIATED
        sink.coding = GzipStream()
        return _GZIP

    def _take_place(self, sink: StreamSink, grant: Grant, address: str | None) -> None:
        """Counts the stream, and uses up its ticket; neither, when one of them fails."""
        sink.hold = self.runtime.quotas.seat(sink.user_id, address)
        try:
            self._use_up(grant)
        except BaseException:
            if sink.hold is not None:
                sink.hold.release()
            raise

    def _use_up(self, grant: Grant) -> None:
        """Takes the grant's ticket, so that nobody can come with it again."""
        ticket = grant.ticket
        if ticket is None:
            return
        with self.needs_broker("whether the ticket was used cannot be told now"):
            first = self.runtime.broker.claim(f"ticket:{ticket.name}", ticket.expires - time.time())
        if not first:
            raise refused_token()

    # -- being turned away -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def needs_broker(self, message: str = "the broker does not answer") -> Iterator[None]:
        """What is done within is refused when the broker does not answer."""
        try:
            yield
        except BrokerUnavailable as error:
            raise self._unavailable(message) from error

    def _full(self) -> Refused:
        return self._unavailable("this worker has no room for another stream")

    def _unavailable(self, message: str) -> Refused:
        wait = jittered_ms(self.settings.retry) / 1000
        return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message, retry_after=wait)

    def refuse(self, refused: Refused, request: Request) -> Response:
        """The answer to a request that was refused, which is counted and logged."""
        self.runtime.figures.count("refused", str(int(refused.code)))
        logs.refused(refused, request.remote_addr, request.path)
        return _refusal(refused)


def read_query(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Looks at the query before anybody else does: refuses bytes that werkzeug could not read, and takes the
    ticket out of what servers and error trackers write into their logs.

    :raises Refused: 400.
    """
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    raw = asked.query_string
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, ErrorCode.INVALID_FORMAT, "the query is not UTF-8") from error
    may_have_one = tickets.PARAMETER.encode() in raw or b"%" in raw  # spares the others reading their query
    if may_have_one and tickets.PARAMETER in asked.args:  # read first: from here on the query has no ticket
        _hide_ticket(asked)


def _hide_ticket(asked: Request) -> None:
    environ = asked.environ
    environ["QUERY_STRING"] = tickets.redacted_query(environ.get("QUERY_STRING", ""))
    asked.query_string = environ["QUERY_STRING"].encode("latin-1")
    for key in ("RAW_URI", "REQUEST_URI"):
        if key in environ:
            environ[key] = tickets.redacted_url(environ[key])


def _give_back_unused(sink: StreamSink, hub: Hub) -> None:
    """Called when the server is done with the response, which may never have begun."""
    if sink.hold is not None and sink not in hub:  # a hijacked stream lives on
        sink.hold.release()


def _refusal(refused: Refused) -> Response:
    response = jsonify(error_body(refused.code, refused.message, refused.details))
    response.status_code = refused.status
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"  # it quotes what was asked for
    if refused.status == 401:
        failed = refused.code != ErrorCode.AUTH_REQUIRED
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if failed else "Bearer"
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(refused.retry_after)))
    return response
