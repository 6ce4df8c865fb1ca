"""Reads event streams of Flask's test client: no server, no socket, and every wait has a deadline."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from ..hub.commands import Effect
from ..hub.hub import Hub
from ..hub.shutdown import open_streams
from ..web.routes import EXTENSION
from ..web.services import Services
from .events import Event, Parser
from .memory import endpoints

#: Seconds that a wait lasts at most, unless the test says otherwise.
TIMEOUT = 5.0
#: Seconds until a mark is sent again: a worker that has just begun may not hear the first.
MARK_AGAIN = 0.2
#: The command that has a stream show how far it is.
MARK = "testing.mark"

_marks = itertools.count()


class NoEvent(AssertionError):
    """What a test waited for has not come in time; the message tells what did."""


class StreamRefused(AssertionError):
    """The app answered with something else than a stream. `status` is the HTTP status, `error` the JSON body
    or the text."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.error = error


class EventStream:
    """One open stream. A thread reads it, so that no wait outlasts its deadline; `close` ends both."""

    def __init__(self, response: TestResponse, app: Flask | None = None, timeout: float = TIMEOUT) -> None:
        """Takes over the response. Blocks until a stream of the blueprint is live: what is published from
        then on arrives, with `ttl=0` too.

        :raises StreamRefused: when it is no event stream.
        """
        if response.status_code != 200 or response.mimetype != "text/event-stream":
            raise StreamRefused(response.status_code, _error_of(response))
        self.response = response
        self.cursor = ""  #: that of the last event that was taken
        self.opening: dict[str, Any] = {}  #: what `sse.open` said: connection, channels, resumed, heartbeat
        self._timeout = timeout
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None: the body has ended
        self._ended = self._closing = False
        self._failure: Exception | None = None
        self._marks: dict[str, threading.Event] = {}
        self._thread = threading.Thread(target=self._pump, name="sse-testing", daemon=True)
        self._thread.start()
        self._services: Services | None = None
        if app is not None:
            self._await_opening(app)

    # -- reading -----------------------------------------------------------------------------------------

    def next(self, type: str | None = None, *, timeout: float | None = None) -> Event:
        """The next event, or the next of one type. Without a type, the protocol's own are passed over.

        :param timeout: seconds to wait at most.
        :raises NoEvent: when it has not come by then, or the stream has ended.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        passed: list[Event] = []
        while (event := self._get(deadline, type or "an event", passed)) is not None:
            if event.type == type or (type is None and not event.is_control):
                return event
            passed.append(event)
        raise NoEvent(f"the stream ended before {type or 'an event'} came{_told(passed)}")

    def take(self, count: int, *, timeout: float | None = None) -> list[Event]:
        """The next `count` events but for the protocol's own, within `timeout` seconds for all of them."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        return [self.next(timeout=max(0.0, deadline - time.monotonic())) for _ in range(count)]

    def received(self) -> list[Event]:
        """What was published before this call and not taken yet, the protocol's own left out.

        Does not wait for a time to pass but for the stream to have caught up, so `received() == []` proves
        that nothing came.

        :raises NoEvent: when it has not caught up in time.
        """
        self._catch_up()
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while (event := self._events.get_nowait()) is not None:
                self.cursor = event.id
                events.append(event)
            self._ended = True
        return [event for event in events if not event.is_control]

    def rest(self, *, timeout: float | None = None) -> list[Event]:
        """All events until the stream ends, the protocol's own left out.

        :raises NoEvent: when it is still open after `timeout` seconds.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        events: list[Event] = []
        while (event := self._get(deadline, "its end", events)) is not None:
            events.append(event)
        return [event for event in events if not event.is_control]

    def _get(self, deadline: float, wanted: str, passed: Iterable[Event]) -> Event | None:
        """The next event of any kind; None when the body has ended."""
        if self._ended:
            return None
        try:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise NoEvent(f"waited in vain for {wanted}{_told(passed)}") from None
        if event is None:
            self._ended = True
            if self._failure is not None:
                raise self._failure
        else:
            self.cursor = event.id
        return event

    # -- the thread --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        parser = Parser()
        try:
            for chunk in _unpacked(self.response):
                for event in parser.feed(chunk):
                    if event.type == "sse.open":
                        self.opening = event.json()
                    self._events.put(event)
                for comment in parser.comments:
                    if comment in self._marks:
                        self._marks[comment].set()
                parser.comments.clear()
                if self._closing:
                    break
        except Exception as error:  # the generator's own; the test is told when it reads
            self._failure = error
        finally:
            self.response.close()
            self._events.put(None)

    # -- the stream in the app -----------------------------------------------------------------------------

    def _await_opening(self, app: Flask) -> None:
        self.next("sse.open")
        hub = _hub_of(self.opening["connection"])
        services = next(found.services for found in endpoints(app) if found.services.streaming.hub is hub)
        self._services, hub = services, services.streaming.hub
        hub.commands.on(MARK, partial(_mark, hub))
        self._catch_up()

    def _catch_up(self) -> None:
        """Returns when everything published so far is here: a command keeps its place among the events."""
        if self._services is None or self._ended:
            return
        deadline = time.monotonic() + self._timeout
        name = f"mark {next(_marks)}"
        seen = self._marks[name] = threading.Event()
        while not seen.is_set() and self._thread.is_alive():
            self._services.publishing.announcer.command(
                MARK, connection=self.opening["connection"], mark=name
            )
            if not seen.wait(MARK_AGAIN) and time.monotonic() > deadline:
                raise NoEvent(f"the stream has not caught up within {self._timeout} s")
        del self._marks[name]

    def close(self) -> None:
        """Leaves the stream, as a browser does; may be called twice."""
        self._closing = True
        connection = self.opening.get("connection", "")
        hub = _hub_of(connection)
        if hub is not None:
            hub.call_soon(
                lambda: hub.disconnector.close_streams(
                    hub.disconnector.find(connection=connection), "left", reconnect=False
                )
            )
            self._thread.join(self._timeout)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class SSEClient:
    """Opens streams of an app by its test client.

    :param app: the app, or a test client of it that has signed in already.
    :param timeout: seconds that each wait lasts at most.
    """

    def __init__(self, app: Flask | FlaskClient, *, timeout: float = TIMEOUT) -> None:
        #: The test client, with its cookies: for signing in, and for requests that publish.
        self.http: FlaskClient = app if isinstance(app, FlaskClient) else app.test_client()
        self._app: Flask = self.http.application
        self._timeout = timeout
        self._streams: list[EventStream] = []

    def open(self, *channels: str, cursor: str | None = None, **options: Any) -> EventStream:
        """A stream of these channels; of `sse` when none is named.

        :param cursor: where to begin: an event's `id`, or `earliest`.
        :param options: further arguments of `FlaskClient.get`, e.g. `headers`.
        :raises StreamRefused: with the status and the error's JSON.
        """
        query: dict[str, str] = {"channels": ",".join(channels)} if channels else {}
        if cursor is not None:
            query["last_event_id"] = cursor
        return self.get(self._url(), query_string={**query, **options.pop("query_string", {})}, **options)

    def get(self, url: str, **options: Any) -> EventStream:
        """Any event stream of the app by its URL.

        :raises StreamRefused: when the answer is something else.
        """
        response = self.http.get(url, **options, buffered=False)
        stream = EventStream(response, self._app if _is_ours(self._app, response) else None, self._timeout)
        self._streams.append(stream)
        return stream

    def _url(self) -> str:
        endpoints(self._app)  # raises when there is none
        blueprint = next(iter(self._app.extensions[EXTENSION]))
        with self._app.test_request_context():
            return self._app.url_for(f"{blueprint.name}.stream")

    def close(self) -> None:
        """Leaves all its streams; may be called twice."""
        while self._streams:
            self._streams.pop().close()

    def __enter__(self) -> SSEClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_events(
    response: TestResponse, count: int | None = None, *, timeout: float = TIMEOUT, control: bool = False
) -> list[Event]:
    """The events of `app.test_client().get(...)`; then the response is closed.

    :param count: how many to read; None reads until the body ends, which a live stream's does not.
    :param timeout: seconds for all of them.
    :param control: count and return the protocol's own (`sse.open`, …) too.
    :raises NoEvent: when they have not come in time.
    :raises StreamRefused: when the answer is no event stream.
    """
    with EventStream(response, timeout=timeout) as stream:
        deadline = time.monotonic() + timeout
        events: list[Event] = []
        while count is None or len(events) < count:
            event = stream._get(deadline, "its end" if count is None else f"{count} events", events)
            if event is None:
                break
            if control or not event.is_control:
                events.append(event)
        if count is not None and len(events) < count:
            raise NoEvent(f"the stream ended after {len(events)} of {count} events{_told(events)}")
        return events


def _unpacked(response: TestResponse) -> Iterator[bytes]:
    """The body's chunks, without the compression that the request may have asked for."""
    if response.headers.get("Content-Encoding") != "gzip":
        return response.iter_encoded()
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress
    return (unpack(chunk) for chunk in response.iter_encoded())


def _told(events: Iterable[Event]) -> str:
    shown = ", ".join(f"{event.type} {event.data[:60]!r}" for event in itertools.islice(events, 10))
    return f"; before came {shown}" if shown else "; nothing else came"


def _error_of(response: TestResponse) -> Any:
    with contextlib.closing(response):
        try:
            return json.loads(response.data)
        except ValueError:
            return response.text[:500]


def _is_ours(app: Flask, response: TestResponse) -> bool:
    """Whether a blueprint's stream answered, and no view of the app's own."""
    try:
        endpoint, _ = app.url_map.bind("localhost").match(response.request.path)
    except HTTPException:
        return False
    return getattr(app.view_functions[endpoint], "__self__", None) in app.extensions.get(EXTENSION, {})


def _hub_of(connection: str) -> Hub | None:
    """The hub of this process that has the stream."""
    hubs = [getattr(count, "__self__", None) for count in open_streams]
    return next(
        (hub for hub in hubs if isinstance(hub, Hub) and hub.disconnector.find(connection=connection)),
        None,
    )


def _mark(hub: Hub, arguments: Mapping[str, Any]) -> list[Effect]:
    """Writes a comment into the stream, at its place among the events."""
    streams = hub.disconnector.find(connection=arguments["connection"])
    return [
        partial(stream.write, stream.own_chunk(f": {arguments['mark']}\n".encode())) for stream in streams
    ]
