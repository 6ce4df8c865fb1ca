"""The door: the way of a request to its stream, and what those are told who do not get in."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from flask import Flask, Request, Response, request
from werkzeug.datastructures import Headers

from ..auth import tickets
from ..auth.identity import invalid_token
from ..auth.policy import Grant, Hooks, Policy
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
from .response import (
    GZIP,
    NEGOTIATED,
    PLAIN,
    StreamResponse,
    refusal,
)
from .services import Services


class StreamEndpoint:
    """What one app serves the streams of one blueprint by. Making it opens nothing."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self.policy = Policy(app, settings, hooks)
        self._queries = QueryCache(settings.max_channels)
        self.services = Services(settings, app.json.dumps, StreamSignals(app), self.policy.find_forbidden)

    @property
    def settings(self) -> Settings:
        """The settings of this moment."""
        return self.services.settings

    def begin_anew(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes what runs, and goes on with other settings; see `Runtime.begin_anew`."""
        self.policy.settings = settings
        self._queries = QueryCache(settings.max_channels)
        self.services.begin_anew(settings, clock)

    # -- coming in ---------------------------------------------------------------------------------------

    def open(self, request: Request) -> StreamResponse:
        """The response whose body is the stream. It counts as open from the body's first step on.

        May block, as the app's hooks do, and for the counts of other workers.

        :raises Refused: 400, 401, 403, 429 or 503.
        """
        services = self.services
        hub, limits, places = services.hub, services.limits, services.places()
        if len(hub) >= places:  # before anybody is looked up
            raise self._full()
        if limits.counts_attempts:
            limits.count_attempt("address", request.remote_addr)
        asked = self._queries.of(request)
        if self.settings.cors_origins:
            cors.check(request, self.settings.cors_origins)
        grant = self.policy.grant(request, asked.channels, asked.ticket, default=not asked.names_channels)
        if limits.counts_attempts:
            limits.count_attempt("user", grant.user_id)
        stream = self._stream(request, grant, asked)
        start = asked.start_for(request.environ.get("HTTP_LAST_EVENT_ID"))
        recovery = hub.recovery(stream.subscribed, start)
        if len(hub) >= (services.request_places(places) if stream.holds_request else places):
            raise self._full()
        headers = Headers()
        headers[:] = self._encode(stream, request)  # a third of what it costs to give them to `Headers`
        if request.method != "HEAD":
            self._take_place(stream, grant)
        response = StreamResponse(response_body(hub, stream, recovery, self.settings), headers=headers)
        if stream.lease is not None:
            response.call_on_close(partial(_give_back_unused, stream, hub))
        return response

    def _stream(self, request: Request, grant: Grant, asked: StreamQuery) -> TransportStream:
        connection, user_id = secrets.token_hex(8), grant.user_id
        stream = self.services.transports.stream(request.environ, connection, user_id, grant.channels)
        stream.grant = grant if grant.can_change else None
        stream.tagged, stream.wait = asked.tagged, asked.wait
        of_streams = self.policy.secrets()
        if of_streams is not None:
            stream.secret = of_streams.of(connection, user_id)
        return stream

    def _encode(self, stream: TransportStream, request: Request) -> tuple[tuple[str, str], ...]:
        """The headers of the stream, which is compressed when its client would have it so."""
        if not self.settings.http_compression:
            return PLAIN
        if not accepts_gzip(request.accept_encodings):
            return NEGOTIATED
        stream.compression = StreamCompression()
        return GZIP

    def _take_place(self, stream: TransportStream, grant: Grant) -> None:
        """Counts the stream, and uses up its ticket; neither, when one of them fails."""
        limits = self.services.limits
        if limits.counts_streams:
            stream.lease = limits.reserve(stream)
        try:
            self._use_up(grant)
        except BaseException:
            if stream.lease is not None:
                stream.lease.release()
            raise

    def _use_up(self, grant: Grant) -> None:
        """Takes the grant's ticket, so that nobody can come with it again."""
        ticket = grant.ticket
        if ticket is None:
            return
        with self.needs_broker("whether the ticket was used cannot be told now"):
            first = self.services.broker.claim(f"ticket:{ticket.name}", ticket.expires - time.time())
        if not first:
            raise invalid_token()

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
        self.services.counters.count("refused", str(int(refused.code)))
        log.refused(refused, request.remote_addr, request.path)
        return refusal(refused)


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


def _give_back_unused(stream: TransportStream, hub: Hub) -> None:
    """Called when the server is done with the response, which may never have begun."""
    if stream.lease is not None and stream not in hub:  # a hijacked stream lives on
        stream.lease.release()
