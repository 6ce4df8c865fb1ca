"""Follows a stream over HTTP, as a browser does: when the connection breaks, reconnects with the cursor."""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import httpx_sse

from ...protocol.data import unmarked
from ..time_limit import shut
from .bounds import BoundedText, is_packed_twice, within_bounds
from .news import ANSWER_TIMEOUT, PAUSE, Disconnected, Ended, News, Opened, Received, meaning

#: At most how many seconds pass between two attempts to connect, unless the server set a longer time.
LONGEST_PAUSE = 30.0
#: HTTP statuses after which the same request may succeed later.
TEMPORARY = (429, 502, 503, 504)
#: How long to wait for the connection, and for the next bytes of the answer, in seconds.
CONNECT_TIMEOUT = 15.0
# Each request opens a connection, so that `URLSource` knows the connection of each request.
_NO_REUSE = httpx.Limits(max_keepalive_connections=0)
#: The body of a refusal is read only if it has at most this many bytes.
MAX_REFUSAL = 10_000


class URLSource:
    """Follows one URL. A thread calls `run`; any thread may call the other methods.

    :param headers: HTTP headers that are sent with each request.
    :param cursor: the cursor after which to begin; empty to begin with the next event.
    :param report: called with each piece of news, by the thread of `run`. May block.
    :param context: which certificates of https URLs are trusted; None for those of the system.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        cursor: str,
        report: Callable[[News], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._context = context
        self._url = url
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        self._cursor = cursor
        self._report = report
        self._pause = PAUSE
        self._failures = 0
        self._was_open = False
        self._why = ""  # the reason that `cut` was given, until `run` reports it
        self._connection: Any = None  # httpcore's connection of the current request
        self._is_late = False  # whether the time for the answer to the current request is over
        self._closed = threading.Event()

    def run(self) -> None:
        """Follows the stream until it ends for good or `close` is called. Blocks."""
        try:
            with self._client() as client:
                while not self._closed.is_set():
                    outcome = self._follow(client)
                    if self._closed.is_set():
                        return
                    if isinstance(outcome, Disconnected):
                        outcome = outcome._replace(pause=within_bounds(outcome.pause))
                    self._report(outcome)
                    if isinstance(outcome, Ended):
                        return
                    self._closed.wait(outcome.pause)
        except (httpx.InvalidURL, ValueError) as error:  # the URL or a header cannot be sent
            self._report(Ended(str(error)))

    def _client(self) -> httpx.Client:
        # Redirects are not followed: most of them lead to a sign-in page, which is no stream.
        verify = self._context or True
        return httpx.Client(timeout=CONNECT_TIMEOUT, follow_redirects=False, limits=_NO_REUSE, verify=verify)

    def _follow(self, client: httpx.Client) -> Disconnected | Ended:
        """Sends one request and reads its response to the end. Returns why the response ended."""
        headers, trace = self._request_headers(), {"trace": self._note_connection}
        try:
            with (
                self._answered_in_time() as answered,
                client.stream("GET", self._url, headers=headers, extensions=trace) as response,
            ):
                refusal = self._refusal(response)
                if refusal is not None:
                    return refusal
                if is_packed_twice(response):
                    return Ended("cannot read: the answer is compressed more than once")
                answered.cancel()
                # The command, not httpx, decides how long a stream may be silent.
                response.request.extensions["timeout"]["read"] = None
                return self._read(response)
        except (httpx.TransportError, httpx.DecodingError) as error:
            why, self._why = self._why or f"{type(error).__name__}: {error}".rstrip(": "), ""
            hopeless = isinstance(error, (httpx_sse.SSEError, httpx.UnsupportedProtocol))
            return self._again(why) if self._was_open and not hopeless else Ended(f"cannot open: {why}")
        finally:
            self._connection = None

    @contextlib.contextmanager
    def _answered_in_time(self) -> Iterator[threading.Timer]:
        """Cuts the connection after `ANSWER_TIMEOUT`, unless the block cancels the timer that it gets.

        httpx limits only the time of each read, so a server that sends byte by byte would hold it for ever.
        """
        limit = threading.Timer(ANSWER_TIMEOUT, self._end_wait)
        limit.daemon = True
        self._is_late = False
        limit.start()
        try:
            yield limit
        finally:
            limit.cancel()

    def _end_wait(self) -> None:
        self._is_late, self._why = True, f"no whole answer in {ANSWER_TIMEOUT:g} s"
        self._shut()

    def _note_connection(self, step: str, info: Mapping[str, Any]) -> None:
        if step in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._connection = info["return_value"]
            if self._is_late:
                self._shut()

    def _request_headers(self) -> dict[str, str]:
        return {**self._headers, "Last-Event-ID": self._cursor} if self._cursor else dict(self._headers)

    def _read(self, response: httpx.Response) -> Disconnected | Ended:
        first = True
        bounded = BoundedText(response)
        for event in httpx_sse.EventSource(bounded).iter_sse():  # type: ignore[arg-type]
            bounded.note_event()
            if first:
                first, self._was_open, self._failures = False, True, 0
                if event.event != "sse.open":
                    self._report(Opened())
            if event.retry is not None:
                self._pause = within_bounds(event.retry / 1000)
            end = self._take(event)
            if end is not None:
                return end
        why, self._why = self._why or "the server ended the response", ""
        return self._again(why)

    def _take(self, event: httpx_sse.ServerSentEvent) -> Disconnected | Ended | None:
        # httpx_sse returns a block of comments as an empty event with the id of the previous event.
        if not event.data and event.event == "message" and event.id in ("", self._cursor):
            return None
        self._cursor = event.id or self._cursor
        received = Received(event.event, unmarked(event.data)[0], event.id)
        self._report(received)
        for news in meaning(received):
            if isinstance(news, (Disconnected, Ended)):
                return news
            self._report(news)
        return None

    def _refusal(self, response: httpx.Response) -> Disconnected | Ended | None:
        if response.status_code == 200:
            return None
        why = _reason(response)
        if response.status_code not in TEMPORARY:
            return Ended(why)
        lost = self._again(why)
        with contextlib.suppress(ValueError):  # `Retry-After` may be a date, which is ignored
            return lost._replace(pause=max(lost.pause, float(response.headers.get("Retry-After", ""))))
        return lost

    def _again(self, why: str) -> Disconnected:
        """Returns news of a lost connection, with the pause until the next attempt.

        The pause is the time that the server set, doubled with each attempt that failed.
        """
        backoff: float = self._pause * 2 ** min(self._failures, 10)
        self._failures += 1
        pause = min(max(LONGEST_PAUSE, self._pause), backoff)
        return Disconnected(why, pause if self._failures == 1 else pause * (0.5 + random.random() / 2))

    def cut(self, why: str) -> None:
        """Closes the current connection. `run` then opens another connection with the cursor."""
        if self._connection is not None:
            self._why = why
            self._shut()

    def close(self) -> None:
        """Makes `run` return. May be called twice."""
        self._closed.set()
        self._shut()

    def _shut(self) -> None:
        connection = self._connection
        raw = connection.get_extra_info("socket") if connection is not None else None
        if raw is not None:
            shut(raw)


def with_query(url: str, **values: int) -> str:
    """Returns `url` with `values` added to its query."""
    return str(httpx.URL(url).copy_merge_params({name: str(value) for name, value in values.items()}))


def _reason(response: httpx.Response) -> str:
    """Returns a text that says why the server refused.

    If the body is an error of this package (docs/errors.md), the text has its code and message.
    """
    why = f"refused: {response.status_code} {response.reason_phrase}"
    if response.is_redirect:
        return f"{why}, to {response.headers.get('Location')}"
    error: object = None
    with contextlib.suppress(ValueError, RecursionError, httpx.HTTPError):
        length = int(response.headers.get("Content-Length", MAX_REFUSAL + 1))
        if length <= MAX_REFUSAL and not is_packed_twice(response):
            response.read()
            error = response.json()
    if isinstance(error, dict) and "code" in error and "message" in error:
        return f"{why}: {error['code']} {error['message']}"
    return why
