"""The browser module against a server that follows a script: what it asks, hears, and does next."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page

import flask_sse_push

from .conftest import Visit, Visitor, eventually_on

MODULE = (Path(flask_sse_push.__file__).parent / "static/push-client.js").read_bytes()

PAGE = b'<!doctype html><link rel="icon" href="data:,"><title>test</title>'

#: Makes `client` and notes all it tells in `told`.
START = """async (options) => {
  const { PushClient } = await import("/push-client.js");
  window.told = [];
  window.client = new PushClient("/stream?channels=a", { minDelay: 20, ...options });
  client.addEventListener("statechange", ({ detail }) => told.push(detail));
}"""


def event(data: Any, type: str | None = None, id: str | None = None) -> str:
    """One event as it goes on the wire."""
    text = data if isinstance(data, str) else json.dumps(data)
    head = (f"id: {id}\n" if id else "") + (f"event: {type}\n" if type else "")
    return f"{head}data: {text}\n\n"


def opening(heartbeat: float = 15, id: str = "e-1", resumed: bool = False) -> str:
    return event({"channels": ["a"], "resumed": resumed, "heartbeat": heartbeat}, "sse.open", id)


class Script(ThreadingHTTPServer):
    """Serves the page, the module, and for each stream the next answer of a script.

    An answer is a status, or the text of a stream; a stream ends after its text when that ends in `END`,
    else it stays open.
    """

    END = "\x04"
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: queue.Queue[int | str] = queue.Queue()
        self.cursors: list[str | None] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def then(self, *answers: int | str) -> None:
        """Adds answers to the script."""
        for answer in answers:
            self.answers.put(answer)


class Answer(BaseHTTPRequestHandler):
    @property
    def script(self) -> Script:
        return cast(Script, self.server)

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path == "/push-client.js":
            self.whole(MODULE, "text/javascript")
        elif path.path == "/stream":
            self.script.cursors.append(parse_qs(path.query).get("last_event_id", [None])[0])
            self.stream(self.script.answers.get(timeout=30))
        else:
            self.whole(PAGE, "text/html")

    def whole(self, body: bytes, type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, answer: int | str) -> None:
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(answer.removesuffix(Script.END).encode())
        self.wfile.flush()
        if not answer.endswith(Script.END):
            self.script.closing.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    thread = threading.Thread(target=script.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield script
    finally:
        script.closing.set()
        script.shutdown()
        script.server_close()
        thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    with serving(Script()) as script:
        yield script


Started = Callable[..., Page]


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """Who looks at the page."""
    return visit()


@pytest.fixture
def start(script: Script, visitor: Visitor) -> Iterator[Started]:
    """Opens a page with a client on the script."""

    def open_page(*handlers: str, **options: Any) -> Page:
        visitor.page.goto(script.url)
        # The handlers come with the client in one step, so that no event is missed.
        lines = "\n".join(f"client.{handler};" for handler in handlers)
        visitor.page.evaluate(START.removesuffix("}") + lines + "}", options)
        return visitor.page

    yield open_page
    visitor.forgive_network_errors()


def told(page: Page, wanted: int) -> list[Any]:
    """What the client told, once it is as many as wanted."""
    eventually_on(page, lambda: page.evaluate("told.length") >= wanted)
    return cast("list[Any]", page.evaluate("told"))


def note(type: str) -> str:
    """A handler that notes what it gets."""
    return f'on("{type}", (message) => told.push(message))'


def test_a_handler_gets_type_data_and_cursor(script: Script, start: Started) -> None:
    script.then(
        opening() + event({"n": 1}, "price", "e-2") + event("plain text", id="e-3") + event("", id="e-4")
    )
    page = start(note("price"), note("message"))
    assert told(page, 4) == [
        {"state": "open"},
        {"type": "price", "data": {"n": 1}, "lastEventId": "e-2"},
        {"type": "message", "data": "plain text", "lastEventId": "e-3"},
        {"type": "message", "data": "", "lastEventId": "e-4"},
    ]
    assert page.evaluate("[client.state, client.lastEventId]") == ["open", "e-4"]


def test_events_named_as_the_browsers_own_are_events(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "error") + event(2, "open") + event(3, "statechange"))
    page = start(note("error"), note("open"), note("statechange"))
    assert [message.get("data") for message in told(page, 4)] == [None, 1, 2, 3]
    assert page.evaluate("client.state") == "open"


def test_a_broken_handler_keeps_nothing_from_the_others(
    script: Script, start: Started, visitor: Visitor
) -> None:
    script.then(opening() + event(1) + event(2))
    page = start('on("message", () => { throw new Error("broken"); })', note("message"))
    assert [message.get("data") for message in told(page, 3)] == [None, 1, 2]
    eventually_on(page, lambda: visitor.problems == ["broken", "broken"])
    visitor.problems.clear()


def test_off_takes_a_handler_back(script: Script, start: Started) -> None:
    script.then(opening() + event(1, id="e-2") + event("not heard", id="e-3") + event(2, "more", "e-4"))
    page = start(
        'on("message", (window.never = () => told.push("never"))).off("message", never)',
        'on("message", function once(message) { told.push(message); client.off("message", once); })',
        note("more"),
    )
    assert [message.get("data") for message in told(page, 3)] == [None, 1, 2]


def test_a_type_may_be_listened_to_later(script: Script, start: Started) -> None:
    script.then(opening() + event(1, "late", "e-2"))
    page = start(f'on("sse.open", () => client.{note("late")})')
    assert told(page, 2)[1] == {"type": "late", "data": 1, "lastEventId": "e-2"}


def test_it_comes_back_after_its_cursor_whatever_happens(script: Script, start: Started) -> None:
    heartbeat = event({}, "sse.heartbeat", "e-3")
    script.then(
        opening() + event(1, id="e-2") + Script.END,
        502,
        204,
        opening(id="e-2", resumed=True) + heartbeat + Script.END,
        opening(id="e-3", resumed=True) + event(2, id="e-4"),
    )
    page = start(note("message"))
    eventually_on(page, lambda: page.evaluate("client.lastEventId") == "e-4")
    assert script.cursors == [None, "e-2", "e-2", "e-2", "e-3"]
    states = [message for message in page.evaluate("told") if "state" in message]
    assert [(one["state"], one.get("reason")) for one in states] == [
        ("open", None),
        ("waiting", "lost"),
        ("connecting", None),
        ("waiting", "refused"),
        ("connecting", None),
        ("waiting", "refused"),
        ("connecting", None),
        ("open", None),
        ("waiting", "lost"),
        ("connecting", None),
        ("open", None),
    ]


def test_it_waits_longer_each_time_and_at_random(script: Script, start: Started) -> None:
    script.then(*[503] * 8, opening())
    page = start(minDelay=1, maxDelay=40)
    eventually_on(page, lambda: page.evaluate("client.state") == "open")
    delays = page.evaluate("told.filter(({ state }) => state === 'waiting').map(({ delay }) => delay)")
    bounds = [1, 2, 4, 8, 16, 32, 40, 40]
    assert all(0 <= delay < bound for delay, bound in zip(delays, bounds, strict=True))
    assert len(set(delays)) == 8


def test_sse_close_says_when_to_come_back(script: Script, start: Started) -> None:
    goodbye = event({"reason": "drain", "reconnect": True, "retry": 123}, "sse.close")
    script.then(opening() + goodbye + Script.END, opening(resumed=True))
    page = start(note("sse.close"), minDelay=60_000)
    states = told(page, 5)
    assert states[2] == {"state": "waiting", "reason": "drain", "delay": 123}
    assert states[-1] == {"state": "open"}
    assert script.cursors == [None, "e-1"]


def test_sse_close_may_be_for_good(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    goodbye = event({"reason": "logout", "reconnect": False, "retry": 0}, "sse.close")
    script.then(opening() + goodbye + Script.END)
    page = start()
    assert told(page, 2) == [{"state": "open"}, {"state": "closed", "reason": "logout"}]
    page.clock.fast_forward(120_000)
    assert page.evaluate("client.state") == "closed"
    assert len(script.cursors) == 1


def test_close_is_for_good(script: Script, start: Started, visitor: Visitor) -> None:
    visitor.page.clock.install()
    script.then(opening() + event(1))
    page = start('on("message", () => client.close())')
    assert told(page, 2) == [{"state": "open"}, {"state": "closed"}]
    page.evaluate("client.close()")
    page.clock.fast_forward(120_000)
    assert page.evaluate("told.length") == 2
    assert len(script.cursors) == 1


def test_a_silent_line_is_given_up_for_a_new_one(script: Script, start: Started) -> None:
    script.then(opening(heartbeat=0.1), opening(heartbeat=15, resumed=True))
    states = told(start(), 4)
    assert [(one["state"], one.get("reason")) for one in states] == [
        ("open", None),
        ("waiting", "silent"),
        ("connecting", None),
        ("open", None),
    ]


def test_it_begins_where_it_is_told(script: Script, start: Started) -> None:
    script.then(opening(id="e-9"))
    page = start(lastEventId="earliest")
    told(page, 1)
    assert script.cursors == ["earliest"]
    assert page.evaluate("client.lastEventId") == "e-9"
