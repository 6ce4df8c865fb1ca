"""From a `GET` to its stream, or to a refusal."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from flask import Flask, Request, Response
from werkzeug.datastructures import Headers

from ..auth.identity import invalid_token
from ..auth.limits import Limits
from ..auth.policy import Grant, Hooks, Policy
from ..auth.tickets import Ticket
from ..config import Settings
from ..errors import BrokerUnavailable, ErrorCode, Refused
from ..hub.compression import StreamCompression
from ..hub.hub import Hub
from ..monitoring import log
from ..monitoring.signals import StreamSignals
from ..protocol.frames import jittered_ms
from ..transports.base import TransportStream, response_body
from . import cors
from .query import QueryCache, StreamQuery, accepts_gzip
from .refusal import refusal
from .services import Services

#: No proxy may store, change or hold back the stream; `nosniff` keeps old browsers from guessing a type.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store, no-transform, private",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie",
}
#: With compression switched on: for a client that does not accept gzip, and for one that does.
NEGOTIATED_HEADERS: Mapping[str, str] = {**HEADERS, "Vary": "Cookie, Accept-Encoding"}
GZIP_HEADERS: Mapping[str, str] = {**NEGOTIATED_HEADERS, "Content-Encoding": "gzip"}

#: The same as pairs, as `werkzeug.Headers` keeps them.
PLAIN, NEGOTIATED, GZIP = (tuple(headers.items()) for headers in (HEADERS, NEGOTIATED_HEADERS, GZIP_HEADERS))


class StreamResponse(Response):
    """A response with neither a length nor a location to compute: its headers go out as they are."""

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers

    def iter_encoded(self) -> Iterator[bytes]:
        return self.response  # type: ignore[return-value]


class StreamEndpoint:
    """Serves the streams of one blueprint on one app. The constructor opens nothing."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self.policy = Policy(app, settings, hooks)
        self._queries = QueryCache(settings.max_channels)
        self.services = Services(settings, app.json.dumps, StreamSignals(app), self.policy.find_forbidden)

    def restart(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes all streams and continues with other settings; see `Services.restart`."""
        self.policy.settings = settings
        self._queries = QueryCache(settings.max_channels)
        self.services.restart(settings, clock)

    # -- opening a stream --------------------------------------------------------------------------------

    def open(self, request: Request) -> StreamResponse:
        """Returns the response whose body is the stream. The stream counts as open once the server asks for
        the first part of the body.

        Blocks as long as the app's hooks and the shared counts do.

        :raises Refused: 400, 401, 403, 429 or 503.
        """
        streaming, settings = self.services.streaming, self.services.settings
        hub, limits = streaming.hub, streaming.limits
        if len(hub) >= streaming.max_streams:  # before the app looks up the user
            raise self._full()
        if limits.counts_attempts:
            limits.count_attempt("address", request.remote_addr)
        query = self._queries.of(request)
        if settings.cors_origins:
            cors.check(request, settings.cors_origins)
        grant = self.policy.grant(request, query.channels, query.ticket, default=not query.names_channels)
        if limits.counts_attempts:
            limits.count_attempt("user", grant.user_id)
        stream = self._new_stream(request, grant, query)
        recovery = hub.recovery(stream.subscribed, query.start_for(request.environ.get("HTTP_LAST_EVENT_ID")))
        if len(hub) >= (streaming.max_waiting if stream.holds_request else streaming.max_streams):
            raise self._full()
        headers = Headers()
        # A slice costs a third of what the constructor takes for the same headers.
        headers[:] = _negotiate(stream, request) if settings.http_compression else PLAIN
        if request.method != "HEAD" and (limits.counts_streams or grant.ticket is not None):
            self._reserve(limits, stream, grant.ticket)
        response = StreamResponse(response_body(hub, stream, recovery, settings), headers=headers)
        if stream.lease is not None:
            response.call_on_close(partial(_release_unused, stream, hub))
        return response

    def _new_stream(self, request: Request, grant: Grant, query: StreamQuery) -> TransportStream:
        connection, user_id = secrets.token_hex(8), grant.user_id
        transports = self.services.streaming.transports
        stream = transports.stream(request.environ, connection, user_id, grant.channels)
        stream.grant = grant if grant.can_change else None
        stream.tagged, stream.batch_wait = query.tagged, query.wait
        of_streams = self.policy.secrets()
        if of_streams is not None:
            stream.secret = of_streams.of(connection, user_id)
        return stream

    def _reserve(self, limits: Limits, stream: TransportStream, ticket: Ticket | None) -> None:
        """Counts the stream and uses up its ticket. If one of the two fails, neither happens."""
        if limits.counts_streams:
            stream.lease = limits.reserve(stream)
        if ticket is None:
            return
        try:
            self._use_up(ticket)
        except BaseException:
            if stream.lease is not None:
                stream.lease.release()
            raise

    def _use_up(self, ticket: Ticket) -> None:
        """Marks the ticket as used in the broker, so that it opens no second stream.

        :raises Refused: 401 if it was used before, 503 if the broker does not answer.
        """
        with self.needs_broker("the broker does not answer, so the ticket cannot be checked"):
            broker, seconds = self.services.publishing.broker, ticket.expires - time.time()
            first = broker.claim(f"ticket:{ticket.name}", seconds)
        if not first:
            raise invalid_token()

    # -- refusing ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def needs_broker(self, message: str = "the broker does not answer") -> Iterator[None]:
        """Turns a `BrokerUnavailable` in the block into a refusal with status 503."""
        try:
            yield
        except BrokerUnavailable as error:
            raise self._unavailable(message) from error

    def _full(self) -> Refused:
        return self._unavailable("this worker has no room for another stream")

    def _unavailable(self, message: str) -> Refused:
        wait = jittered_ms(self.services.settings.retry) / 1000
        return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message, retry_after=wait)

    def refuse(self, refused: Refused, request: Request) -> Response:
        """Returns the response for a refused request. Counts and logs the refusal."""
        self.services.publishing.counters.count("refused", str(int(refused.code)))
        log.refused(refused, request.remote_addr, request.path)
        return refusal(refused)


def _negotiate(stream: TransportStream, request: Request) -> tuple[tuple[str, str], ...]:
    """Returns the headers of a stream whose client may choose compression; sets up the compression."""
    if not accepts_gzip(request.accept_encodings):
        return NEGOTIATED
    stream.compression = StreamCompression()
    return GZIP


def _release_unused(stream: TransportStream, hub: Hub) -> None:
    """Called when the server closes the response. Releases the lease of a stream that never opened."""
    if stream.lease is not None and stream not in hub:  # a hijacked stream stays open
        stream.lease.release()
