"""A server that follows a script, so that a test knows exactly which answer each request of the client
gets."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page

import flask_sse_push
from flask_sse_push.protocol.data import PACKED

from .conftest import eventually_on

STATIC = Path(flask_sse_push.__file__).parent / "static"

PAGE = b'<!doctype html><link rel="icon" href="data:,"><title>test</title>'


def event(data: Any, type: str | None = None, id: str | None = None) -> str:
    """Returns the frame of an event."""
    text = data if isinstance(data, str) else json.dumps(data)
    head = (f"id: {id}\n" if id else "") + (f"event: {type}\n" if type else "")
    return f"{head}data: {text}\n\n"


def packed_event(envelope: Any, type: str | None = None, id: str | None = None) -> str:
    """Returns the frame of an event whose data is an envelope, with the marks that say so."""
    return event((envelope if isinstance(envelope, str) else json.dumps(envelope)) + PACKED, type, id)


def opening(heartbeat: float = 15, id: str = "e-1", resumed: bool = False) -> str:
    """Returns the first event of a stream."""
    return event({"channels": ["a"], "resumed": resumed, "heartbeat": heartbeat}, "sse.open", id)


class Refusal(NamedTuple):
    """An answer that is not a stream."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class StreamRequest(NamedTuple):
    """A request for a stream."""

    method: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Script(ThreadingHTTPServer):
    """Serves a page and the modules under /client/. Each request for a stream gets the script's next answer.

    An answer is a status, a Refusal, or the text of a stream. If the text ends in `END`, the stream ends
    after it. Otherwise the stream stays open.
    """

    END = "\x04"
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: queue.Queue[int | str | Refusal] = queue.Queue()
        self.requests: list[StreamRequest] = []
        self.channel_change = Refusal(404)  # answer to requests that change the channels
        self.channel_changes: list[Mapping[str, str]] = []  # headers of requests that change channels
        self.files: dict[str, Refusal] = {}  # more files by path
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cursors(self) -> list[str | None]:
        """Returns the cursor of each request for a stream."""
        return [one.query.get("last_event_id", [None])[0] for one in self.requests]

    def then(self, *answers: int | str | Refusal) -> None:
        """Adds answers to the script."""
        for answer in answers:
            self.answers.put(answer)


class Answer(BaseHTTPRequestHandler):
    @property
    def script(self) -> Script:
        return cast(Script, self.server)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/client/"):
            # Frames with an origin of their own load the modules too.
            headers = {"Content-Type": "text/javascript", "Access-Control-Allow-Origin": "*"}
            self.whole(200, headers, (STATIC / url.path[8:]).read_bytes())
        elif url.path.endswith("/channels"):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.script.channel_changes.append({name.lower(): value for name, value in self.headers.items()})
            self.whole(*self.script.channel_change)
        elif url.path in self.script.files:
            self.whole(*self.script.files[url.path])
        elif url.path == "/stream":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.script.requests.append(
                StreamRequest(
                    self.command,
                    parse_qs(url.query),
                    {name.lower(): value for name, value in self.headers.items()},
                    body,
                )
            )
            self.stream(self.script.answers.get(timeout=120))
        else:
            self.whole(200, {"Content-Type": "text/html"}, PAGE)

    do_POST = do_GET

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def stream(self, answer: int | str | Refusal) -> None:
        if isinstance(answer, int):
            answer = Refusal(answer)
        if isinstance(answer, Refusal):
            self.whole(*answer)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(answer.removesuffix(Script.END).encode())
        self.wfile.flush()
        if not answer.endswith(Script.END):
            self.script.closing.wait(300)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """Serves until the block ends."""
    thread = threading.Thread(target=script.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield script
    finally:
        script.closing.set()
        script.shutdown()
        script.server_close()
        thread.join()


Started = Callable[..., Page]


def noted(page: Page, wanted: int) -> list[Any]:
    """Waits until the client has noted at least `wanted` things; returns all of them."""
    eventually_on(page, lambda: page.evaluate("notes.length") >= wanted)
    return cast("list[Any]", page.evaluate("notes"))


def note(type: str) -> str:
    """Returns the source of a call that registers a handler, which notes its messages."""
    return f'on("{type}", (message) => notes.push(message))'


def states(page: Page) -> list[tuple[str, str | None]]:
    """Returns the states that the client has had, each with its reason."""
    found = page.evaluate("notes.filter((one) => one.state)")
    return [(one["state"], one.get("reason")) for one in found]
