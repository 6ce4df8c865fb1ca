"""A stream followed as a browser does it: it comes back after a cut and says where it was."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Mapping

import httpx
import httpx_sse

from .news import PAUSE, Came, Ended, Lost, News, Opened, meaning

#: Seconds to connect and get the head of an answer.
PATIENCE = 15.0
#: Seconds between two tries while nobody answers, at most.
LONGEST_PAUSE = 30.0
#: Refusals after which the same request may succeed.
PASSING = (429, 502, 503, 504)
#: Bytes read of a refusal.
MOST = 10_000


class URLSource:
    """One URL. `run` is the body of a thread; the other methods may be called from any.

    :param headers: of each request.
    :param cursor: where to begin; empty is now.
    :param tell: gets all that is to be told, in the thread of `run`. May block.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], cursor: str, report: Callable[[News], None]
    ) -> None:
        self._url = url
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        self._cursor = cursor
        self._report = report
        self._pause = PAUSE
        self._failures = 0
        self._was_open = False
        self._why = ""  # why we cut it ourselves
        self._response: httpx.Response | None = None
        self._closed = threading.Event()

    def run(self) -> None:
        """Follows the stream until it ends for good or is closed."""
        try:
            # A redirection mostly leads to a page for signing in.
            with httpx.Client(timeout=PATIENCE, follow_redirects=False) as client:
                while not self._closed.is_set():
                    outcome = self._follow(client)
                    if self._closed.is_set():
                        return
                    self._report(outcome)
                    if isinstance(outcome, Ended):
                        return
                    self._closed.wait(outcome.pause)
        except (httpx.InvalidURL, ValueError) as error:  # a URL, or a header, that cannot be sent
            self._report(Ended(str(error)))

    def _follow(self, client: httpx.Client) -> Lost | Ended:
        """One request, read to its end; returns why it ended."""
        try:
            with client.stream("GET", self._url, headers=self._asking()) as response:
                self._response = response
                refusal = self._refusal(response)
                if refusal is not None:
                    return refusal
                # How long a stream may be silent is up to who reads the news.
                response.request.extensions["timeout"]["read"] = None
                return self._read(response)
        except (httpx.TransportError, httpx.DecodingError) as error:
            why, self._why = self._why or f"{type(error).__name__}: {error}".rstrip(": "), ""
            hopeless = isinstance(error, (httpx_sse.SSEError, httpx.UnsupportedProtocol))
            return self._again(why) if self._was_open and not hopeless else Ended(f"cannot open it: {why}")
        finally:
            self._response = None

    def _asking(self) -> dict[str, str]:
        return {**self._headers, "Last-Event-ID": self._cursor} if self._cursor else dict(self._headers)

    def _read(self, response: httpx.Response) -> Lost | Ended:
        plain = True  # whether nothing but the answer's head said that it is open
        for event in httpx_sse.EventSource(response).iter_sse():
            if plain:
                plain, self._was_open, self._failures = False, True, 0
                if event.event != "sse.open":
                    self._report(Opened())
            if event.retry is not None:
                self._pause = event.retry / 1000
            end = self._take(event)
            if end is not None:
                return end
        why, self._why = self._why or "the server ended the response", ""
        return self._again(why)

    def _take(self, event: httpx_sse.ServerSentEvent) -> Lost | Ended | None:
        # The decoder gives out a block of comments too, with the id of the event before it.
        if not event.data and event.event == "message" and event.id in ("", self._cursor):
            return None
        self._cursor = event.id or self._cursor
        came = Came(event.event, event.data, event.id)
        self._report(came)
        for news in meaning(came):
            if isinstance(news, (Lost, Ended)):
                return news
            self._report(news)
        return None

    def _refusal(self, response: httpx.Response) -> Lost | Ended | None:
        if response.status_code == 200:
            return None
        why = _reason(response)
        if response.status_code not in PASSING:
            return Ended(why)
        lost = self._again(why)
        with contextlib.suppress(ValueError):  # it may be a date
            return lost._replace(pause=min(3600.0, max(0.0, float(response.headers.get("Retry-After", "")))))
        return lost

    def _again(self, why: str) -> Lost:
        """Waits as long as the server told, and longer each time that nobody answers."""
        backoff: float = self._pause * 2 ** min(self._failures, 10)
        self._failures += 1
        pause = min(max(LONGEST_PAUSE, self._pause), backoff)
        return Lost(why, pause if self._failures == 1 else pause * (0.5 + random.random() / 2))

    def cut(self, why: str) -> None:
        """Gives the present connection up; the next one resumes."""
        if self._response is not None:
            self._why = why
            self._shut()

    def close(self) -> None:
        """Lets `run` return; may be called twice."""
        self._closed.set()
        self._shut()

    def _shut(self) -> None:
        response = self._response
        stream = response.extensions.get("network_stream") if response else None
        raw = stream.get_extra_info("socket") if stream else None
        if raw is not None:  # wakes the thread that reads, which closing would not
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)


def with_query(url: str, **values: int) -> str:
    """The URL with these in its query too."""
    return str(httpx.URL(url).copy_merge_params({name: str(value) for name, value in values.items()}))


def _reason(response: httpx.Response) -> str:
    """The refusal in words: the error's own, where it is one of ours."""
    why = f"refused: {response.status_code} {response.reason_phrase}"
    if response.is_redirect:
        return f"{why}, to {response.headers.get('Location')}"
    error: object = None
    with contextlib.suppress(ValueError, httpx.HTTPError):
        if int(response.headers.get("Content-Length", MOST + 1)) <= MOST:
            response.read()
            error = response.json()
    if isinstance(error, dict) and "code" in error and "message" in error:
        return f"{why}: {error['code']} {error['message']}"
    return why
