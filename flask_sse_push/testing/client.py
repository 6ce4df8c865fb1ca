"""Reads event streams through Flask's test client, without a server. Every wait has a deadline."""

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
from ..hub.drain import open_streams
from ..hub.hub import Hub
from ..web.routes import EXTENSION
from ..web.services import Services
from .events import Event, Parser
from .memory import endpoints

#: At most how many seconds each wait takes, unless the caller passes another time.
TIMEOUT = 5.0
#: Seconds until a mark is sent again, because a worker that has just started may miss the first mark.
MARK_INTERVAL = 0.2
#: The command that writes a mark (a comment) into a stream. The mark arrives after all earlier events.
MARK = "testing.mark"

_marks = itertools.count()


class NoEvent(AssertionError):
    """An event did not arrive in time. The message lists the events that arrived instead."""


class StreamRefused(AssertionError):
    """The app did not answer with an event stream.

    `status` is the HTTP status. `error` is the parsed body if the body is JSON, otherwise its text.
    """

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.error = error


class EventStream:
    """One open stream. A thread reads the stream, so every wait can have a deadline."""

    def __init__(self, response: TestResponse, app: Flask | None = None, timeout: float = TIMEOUT) -> None:
        """Starts to read `response`. If `app` is given, blocks until the stream is live: from then on every
        published event reaches the stream, even an event with `ttl=0`.

        :param app: the app if a blueprint of this package sends the stream; None for a view of the app.
        :param timeout: at most how many seconds each wait takes.
        :raises StreamRefused: if the response is no event stream.
        """
        if response.status_code != 200 or response.mimetype != "text/event-stream":
            raise StreamRefused(response.status_code, _error_of(response))
        self.response = response
        self.cursor = ""  #: the cursor of the last event that the test took
        self.opening: dict[str, Any] = {}  #: the data of `sse.open`: connection, channels, resumed, heartbeat
        self._timeout = timeout
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None means the end of the body
        self._ended = self._closing = False
        self._failure: Exception | None = None
        self._marks: dict[str, threading.Event] = {}
        self._thread = threading.Thread(target=self._pump, name="sse-testing", daemon=True)
        self._thread.start()
        self._services: Services | None = None
        if app is not None:
            self._await_opening(app)

    # -- called by tests -----------------------------------------------------------------------------------

    def next(self, type: str | None = None, *, timeout: float | None = None) -> Event:
        """Returns the next event whose type is `type`, and skips all events before it. Blocks.

        :param type: None for the next event of any type that does not begin with `sse.`.
        :param timeout: at most how many seconds to wait.
        :raises NoEvent: if the event has not arrived within `timeout`, or the stream has ended.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        skipped: list[Event] = []
        while (event := self._get(deadline, type or "an event", skipped)) is not None:
            if event.type == type or (type is None and not event.is_control):
                return event
            skipped.append(event)
        raise NoEvent(f"the stream ended before {type or 'an event'} arrived{_listed(skipped)}")

    def take(self, count: int, *, timeout: float | None = None) -> list[Event]:
        """Returns the next `count` events whose type does not begin with `sse.`.

        :param timeout: at most how many seconds to wait for all these events together.
        :raises NoEvent: if the events have not arrived within `timeout`, or the stream has ended.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        return [self.next(timeout=max(0.0, deadline - time.monotonic())) for _ in range(count)]

    def received(self) -> list[Event]:
        """Returns the events that were published before this call and that the test has not taken yet.

        Leaves out types that begin with `sse.`. Waits until all these events have arrived, not for a fixed
        time. So `received() == []` proves that no event was sent to the stream.

        :raises NoEvent: if the events have not arrived in time.
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
        """Returns all events until the stream ends, without types that begin with `sse.`. Blocks.

        :raises NoEvent: if the stream is still open after `timeout` seconds.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        events: list[Event] = []
        while (event := self._get(deadline, "its end", events)) is not None:
            events.append(event)
        return [event for event in events if not event.is_control]

    def _get(self, deadline: float, wanted: str, skipped: Iterable[Event]) -> Event | None:
        """Returns the next event of any type; None if the body has ended.

        :raises NoEvent: if no event has arrived by `deadline`.
        """
        if self._ended:
            return None
        try:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise NoEvent(f"{wanted} did not arrive in time{_listed(skipped)}") from None
        if event is None:
            self._ended = True
            if self._failure is not None:
                raise self._failure
        else:
            self.cursor = event.id
        return event

    # -- the thread that reads -----------------------------------------------------------------------------

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
        except Exception as error:  # the app's generator failed; `_get` raises this exception in the test
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
        """Blocks until all events published so far have arrived.

        Publishes a mark (a comment) and waits for it. A mark arrives after all events published before it.
        """
        if self._services is None or self._ended:
            return
        deadline = time.monotonic() + self._timeout
        name = f"mark {next(_marks)}"
        arrived = self._marks[name] = threading.Event()
        while not arrived.is_set() and self._thread.is_alive():
            self._services.publishing.announcer.command(
                MARK, connection=self.opening["connection"], mark=name
            )
            if not arrived.wait(MARK_INTERVAL) and time.monotonic() > deadline:
                raise NoEvent(f"the published events have not all arrived within {self._timeout} s")
        del self._marks[name]

    def close(self) -> None:
        """Closes the stream, as a browser does. May be called twice."""
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
    """Opens streams of an app through its test client.

    :param app: the app, or one of its test clients, for example a client that has signed in.
    :param timeout: at most how many seconds each wait takes.
    """

    def __init__(self, app: Flask | FlaskClient, *, timeout: float = TIMEOUT) -> None:
        #: The test client, with its cookies: use it to sign in and to send requests that publish.
        self.http: FlaskClient = app if isinstance(app, FlaskClient) else app.test_client()
        self._app: Flask = self.http.application
        self._timeout = timeout
        self._streams: list[EventStream] = []

    def open(self, *channels: str, cursor: str | None = None, **options: Any) -> EventStream:
        """Opens a stream of `channels` (default: the channel `sse`). Blocks until the stream is live.

        :param cursor: the `id` of the event after which the stream begins, or `earliest`.
        :param options: more arguments for `FlaskClient.open`, such as `headers`, or `method="POST"`.
        :raises StreamRefused: if the app refuses the stream.
        """
        query: dict[str, str] = {"channels": ",".join(channels)} if channels else {}
        if cursor is not None:
            query["last_event_id"] = cursor
        return self.get(self._url(), query_string={**query, **options.pop("query_string", {})}, **options)

    def get(self, url: str, **options: Any) -> EventStream:
        """Opens the event stream at `url`, which may also lead to a view of the app itself.

        :raises StreamRefused: if the response is no event stream.
        """
        response = self.http.open(url, **options, buffered=False)
        stream = EventStream(response, self._app if _is_ours(self._app, response) else None, self._timeout)
        self._streams.append(stream)
        return stream

    def _url(self) -> str:
        endpoints(self._app)  # raises RuntimeError if no blueprint is registered
        blueprint = next(iter(self._app.extensions[EXTENSION]))
        name = next(name for name, view in self._app.view_functions.items() if view == blueprint._stream)
        with self._app.test_request_context():
            return self._app.url_for(name)

    def close(self) -> None:
        """Closes all streams that this client has opened. May be called twice."""
        while self._streams:
            self._streams.pop().close()

    def __enter__(self) -> SSEClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_events(
    response: TestResponse, count: int | None = None, *, timeout: float = TIMEOUT, control: bool = False
) -> list[Event]:
    """Returns the events of a response of `app.test_client().get(...)`, and closes the response.

    :param count: how many events to read. With None, reads until the body ends; a live stream never ends.
    :param timeout: at most how many seconds to wait for all events together.
    :param control: whether to count and return events whose type begins with `sse.` too.
    :raises NoEvent: if the events have not arrived in time.
    :raises StreamRefused: if the response is no event stream.
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
            raise NoEvent(f"the stream ended after {len(events)} of {count} events{_listed(events)}")
        return events


def _unpacked(response: TestResponse) -> Iterator[bytes]:
    """Returns the chunks of the body; decompresses them if the response is compressed with gzip."""
    if response.headers.get("Content-Encoding") != "gzip":
        return response.iter_encoded()
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress
    return (unpack(chunk) for chunk in response.iter_encoded())


def _listed(events: Iterable[Event]) -> str:
    """Returns the last part of an error message: a list of the events that arrived instead."""
    shown = ", ".join(f"{event.type} {event.data[:60]!r}" for event in itertools.islice(events, 10))
    return f"; before it arrived {shown}" if shown else "; nothing else arrived"


def _error_of(response: TestResponse) -> Any:
    with contextlib.closing(response):
        try:
            return json.loads(response.data)
        except ValueError:
            return response.text[:500]


def _is_ours(app: Flask, response: TestResponse) -> bool:
    """Whether a blueprint of this package sent the response; False if a view of the app sent it."""
    try:
        endpoint, _ = app.url_map.bind("localhost").match(response.request.path)
    except HTTPException:
        return False
    return getattr(app.view_functions[endpoint], "__self__", None) in app.extensions.get(EXTENSION, {})


def _hub_of(connection: str) -> Hub | None:
    """Returns the hub that has the stream; None if the stream is not open."""
    hubs = [getattr(count, "__self__", None) for count in open_streams]
    return next(
        (hub for hub in hubs if isinstance(hub, Hub) and hub.disconnector.find(connection=connection)),
        None,
    )


def _mark(hub: Hub, arguments: Mapping[str, Any]) -> list[Effect]:
    """Handles the command `MARK`: writes a comment into the stream, after all events published before it."""
    streams = hub.disconnector.find(connection=arguments["connection"])
    return [
        partial(stream.write, stream.own_chunk(f": {arguments['mark']}\n".encode())) for stream in streams
    ]
