"""Answers a request for a stream: with the stream, or with a refusal."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flask import Flask, Request, Response, g
from werkzeug.datastructures import Headers

from ..auth.hooks import Hooks
from ..auth.identity import invalid_ticket
from ..auth.limits import Limits
from ..auth.policy import Grant, Policy
from ..auth.tickets import Ticket
from ..config import Settings
from ..config.channel_policies import ADMIN_CHANNEL
from ..errors import BrokerUnavailable, ErrorCode, Refused
from ..history.recovery_driver import Recovery
from ..hub.compression import StreamCompression
from ..hub.hub import Hub
from ..monitoring.refusals import RecentRefusal, RefusalLog
from ..monitoring.signals import StreamSignals
from ..protocol.frames import jittered_ms
from ..transports.base import TransportStream
from . import page
from .capacity import explain_full
from .cors import check_own_page
from .misspelt import explain, misspelt
from .query import QueryCache, StreamQuery, accepts_gzip, all_parameters_of
from .refusal import refusal
from .response import StreamResponse
from .services import Services

logger = logging.getLogger(__name__)

#: Headers of every stream. They forbid proxies to store, change or delay the stream. `nosniff` keeps old
#: browsers from guessing another content type.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store, no-transform, private",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Cookie",
}
#: Headers if the app allows compression. The first set is for a client that does not accept gzip, the second
#: set for a client that accepts gzip.
NEGOTIATED_HEADERS: Mapping[str, str] = {**HEADERS, "Vary": "Cookie, Accept-Encoding"}
GZIP_HEADERS: Mapping[str, str] = {**NEGOTIATED_HEADERS, "Content-Encoding": "gzip"}

#: The mean reconnection time for htmx 4, in seconds. htmx closes the stream of a hidden tab. When the tab is
#: shown again, htmx first waits this time. After each try that fails, htmx doubles the time by itself.
HTMX_RETRY = 0.1

#: HEADERS, NEGOTIATED_HEADERS and GZIP_HEADERS as pairs of (name, value), as `werkzeug.Headers` stores them.
PLAIN, NEGOTIATED, GZIP = (tuple(headers.items()) for headers in (HEADERS, NEGOTIATED_HEADERS, GZIP_HEADERS))


class StreamEndpoint:
    """Serves the streams of one blueprint on one app. The constructor opens no connection."""

    def __init__(self, app: Flask, settings: Settings, hooks: Hooks) -> None:
        self.policy = Policy(app, settings, hooks)
        self._queries = QueryCache(settings.max_channels)
        self._refusals = RefusalLog(app)
        self._told_full = self._told_misspelt = False
        self.services = Services(
            settings, app.json.dumps, StreamSignals(app), self.policy.find_forbidden, app.root_path
        )

    def restart(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Closes all streams, and uses other settings from now on; see `Services.restart`."""
        self.policy.settings = settings
        self._queries = QueryCache(settings.max_channels)
        self.services.restart(settings, clock)

    # -- opening a stream --------------------------------------------------------------------------------

    def open(self, request: Request) -> StreamResponse:
        """Returns a response with the stream as its body.

        The stream opens when the server reads the first part of the body. Blocks while the app's hooks run,
        and while the broker counts the stream.

        :raises Refused: 400, if a parameter is not valid; 411, 413 or 415, if the body is not valid; 401 or
            403, if the user or the page may not listen; 429, if the user or the address has reached a limit;
            503, if the worker has no room for another stream, if the broker does not answer and the request
            has a ticket, or if the stream would block the server; 505, if the stream would block an HTTP/2
            connection.
        """
        streaming = self.services.streaming
        hub, limits = streaming.hub, streaming.limits
        if len(hub) >= streaming.max_streams:  # a full worker refuses before the app looks up the user
            raise self._full(False)
        if limits.counts_attempts:
            limits.count_attempt("address", request.remote_addr)
        query = self._queries.of(request)
        if "HTTP_ORIGIN" in request.environ:  # a fast check: most requests for a stream have no Origin
            self.services.check_origin(request)
        began = g._get_current_object().get(page.STARTED) or time.monotonic()
        default = not query.names_channels
        try:
            grant = self.policy.grant(request, query.channels, query.ticket, began, default=default)
        except Refused as refused:
            if default:
                explain(refused, all_parameters_of(request))
            raise
        if default and not self._told_misspelt:
            self._tell_misspelt(request)
        if limits.counts_attempts:
            limits.count_attempt("user", grant.user_id)
        if ADMIN_CHANNEL in grant.channels:
            self._watch(request)
        stream = self._new_stream(request, grant, query)
        last = request.environ.get("HTTP_LAST_EVENT_ID")
        recovery = hub.recovery(stream.subscribed, query.start_for(last) if last else query.start)
        return self.respond(request, stream, recovery, grant.ticket)

    def _tell_misspelt(self, request: Request) -> None:
        """Writes into the log, once, that a request without channels may have misspelt a parameter."""
        hint = misspelt(all_parameters_of(request))
        if hint:
            self._told_misspelt = True
            logger.warning("a stream listens to the default channel: %s", hint)

    def _watch(self, request: Request) -> None:
        """Makes all workers report their state to open admin pages. Does not block.

        :raises Refused: 403, if a page of another origin sent the request.
        """
        check_own_page(request)
        from .admin.watch import watch_of  # only admin pages listen to the channel

        watch_of(self.services).start()

    def vouched_stream(self, request: Request, channel: str) -> TransportStream:
        """Returns a new stream of a channel. The view of the app has decided that the user may read it.

        :raises Refused: 429, if the user or the address has tried too often.
        """
        limits, began = self.services.streaming.limits, g.get(page.STARTED) or time.monotonic()
        if limits.counts_attempts:
            limits.count_attempt("address", request.remote_addr)
        grant = self.policy.vouched(request, (channel,), began)
        if limits.counts_attempts:
            limits.count_attempt("user", grant.user_id)
        transports = self.services.streaming.transports
        stream = transports.stream(request.environ, secrets.token_hex(8), grant.user_id, grant.channels)
        stream.grant = grant if grant.can_change else None
        stream.app_joined = frozenset(grant.channels)  # so rechecks do not ask `@sse.authorize`
        stream.batch_wait = 0.0
        return stream

    def respond(
        self, request: Request, stream: TransportStream, recovery: Recovery, ticket: Ticket | None = None
    ) -> StreamResponse:
        """Returns a response with a stream as its body.

        :param recovery: reads the events that the stream has missed.
        :param ticket: the ticket that the request has used, if any.
        :raises Refused: 401, if the ticket was used before; 429, if the user or the address has reached a
            limit; 503, if the worker has no room for another stream, or if the broker does not answer.
        """
        streaming, settings = self.services.streaming, self.services.settings
        hub, limits = streaming.hub, streaming.limits
        most = streaming.max_waiting if stream.holds_request else streaming.max_streams
        # A stream that missed much keeps its request busy until it joins its group.
        if len(hub) >= most or len(hub.behind) >= streaming.max_waiting:
            raise self._full(stream.holds_request)
        headers = Headers()
        # Assigning to the slice is three times as fast as passing the headers to the constructor.
        headers[:] = _negotiate(stream, request) if settings.http_compression else PLAIN
        response = StreamResponse(stream.body(hub, recovery), headers, stream)
        if request.method != "HEAD" and (limits.counts_streams or ticket is not None):
            self._reserve(limits, stream, request.remote_addr, ticket)
            weakref.finalize(response.response, _release_unused, stream, hub)
        return response

    def _new_stream(self, request: Request, grant: Grant, query: StreamQuery) -> TransportStream:
        connection, user_id = secrets.token_hex(8), grant.user_id
        transports = self.services.streaming.transports
        stream = transports.stream(request.environ, connection, user_id, grant.channels, query.poll)
        stream.grant = grant if grant.can_change else None
        stream.tagged, stream.batch_wait = query.tagged, query.wait
        if query.dialect:  # only a client that asks for batches can read them
            stream.dialect, stream.batch_wait = query.dialect, query.wait or 0.0
        if "HTTP_HX_REQUEST" in request.environ:
            stream.retry = min(stream.retry, HTMX_RETRY)
        of_streams = self.policy.secrets()
        if of_streams is not None:
            stream.secret = of_streams.of(connection, user_id)
        return stream

    def _reserve(
        self, limits: Limits, stream: TransportStream, address: str | None, ticket: Ticket | None
    ) -> None:
        """Counts the stream and marks its ticket as used.

        If a step fails or is interrupted, the stream is not counted.
        """
        with contextlib.ExitStack() as held:
            if limits.counts_streams:
                stream.reservation = limits.reserve(stream.user_id, address)
            if stream.reservation is not None:
                held.callback(stream.reservation.release)
            if ticket is not None:
                self._use_up(ticket)
            held.pop_all()

    def _use_up(self, ticket: Ticket) -> None:
        """Marks the ticket as used in the broker, so that the ticket opens no second stream.

        :raises Refused: 401, if the ticket was used before, or if its rights were revoked; 503, if the broker
            does not answer.
        """
        with self.needs_broker("the broker does not answer, so the ticket cannot be checked"):
            broker, seconds = self.services.publishing.broker, ticket.expires - time.time()
            revoked = ticket.is_revoked(broker, self.services.streaming.hub.disconnector.revoked_since)
            valid = not revoked and broker.claim(f"ticket:{ticket.name}", seconds)
        if not valid:
            raise invalid_ticket()

    def ticket(self, user: Any, channels: str | Iterable[str], seconds: float) -> str:
        """Returns a ticket; see `SSEBlueprint.ticket`."""
        asked = self.services.command_position(page.began())
        return self.policy.ticket(user, channels, seconds, asked)

    # -- refusing a request ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def needs_broker(self, message: str = "the broker does not answer") -> Iterator[None]:
        """Turns a `BrokerUnavailable` that is raised in the `with` block into a refusal with status 503.

        :param message: the message of the refusal.
        """
        try:
            yield
        except BrokerUnavailable as error:
            raise self._unavailable(message) from error

    def _full(self, holds_request: bool) -> Refused:
        """Returns the refusal of a stream that the worker has no room for. The log gets the reason once."""
        streaming, settings = self.services.streaming, self.services.settings
        refused = self._unavailable("this worker has no room for another stream")
        if not self._told_full and len(streaming.hub.behind) < streaming.max_waiting:
            self._told_full = refused.told = True
            why = explain_full(settings, holds_request=holds_request)
            logger.error("this worker has no room for another stream, and refuses it with 503: %s", why)
        return refused

    def _unavailable(self, message: str) -> Refused:
        wait = jittered_ms(self.services.settings.retry) / 1000
        return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, message, retry_after=wait)

    def refuse(self, refused: Refused, request: Request) -> Response:
        """Counts, logs and remembers a refusal. Returns the response for the refused request."""
        self.services.refusals.append(RecentRefusal.of(refused, request.remote_addr))
        self.services.publishing.counters.count("refused", str(int(refused.code)))
        self._refusals.write(refused, request.remote_addr, request.path)
        return refusal(refused)


def _negotiate(stream: TransportStream, request: Request) -> tuple[tuple[str, str], ...]:
    """Returns the headers of a stream, and switches compression on if the client accepts gzip.

    Short streams are not compressed: they send too little to gain from a window that streams share.
    """
    if stream.poll is not None or not accepts_gzip(request.accept_encodings):
        return NEGOTIATED
    stream.compression = StreamCompression()
    return GZIP


def _release_unused(stream: TransportStream, hub: Hub) -> None:
    """Subtracts a stream that never opened from the counts. Called when nothing can read its body any more.

    This is also the case when an `after_request` hook has failed or has returned another response.
    """
    # A stream on a hijacked socket outlives the body of its response.
    if stream.reservation is not None and stream not in hub:
        stream.reservation.release()
