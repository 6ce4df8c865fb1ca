"""A server that plays the cases. It listens on two ports, which are two origins of one site."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

import flask_sse_push

from .case import Case, Reply, Request

STATIC = Path(flask_sse_push.__file__).parent / "static"
SCRIPT = Path(__file__).with_name("play.js")

#: Seconds between two pieces of a body, so that they mostly arrive one by one.
PAUSE = 0.01

PAGE = b'<!doctype html><link rel="icon" href="data:,"><title>cases</title>'
#: In this page, relative addresses begin at /play/.
BASED = PAGE + b'<base href="/play/">'


class Origin(ThreadingHTTPServer):
    """One port of the server."""

    daemon_threads = True

    def __init__(self, played: Played) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.played = played

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Seen(NamedTuple):
    """A request, and the connection that it came on."""

    request: Request
    left: threading.Event  # set when the server notices that the client has left


class Played:
    """The cases, and what clients asked for. A run is one client's play of one case."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self.cases = cases
        self.connections: Counter[str] = Counter()  # by run
        self.seen: dict[str, list[Seen]] = {}  # by run
        self.closing = threading.Event()
        self.origins = [Origin(self), Origin(self)]
        self._lock = threading.Lock()

    def note(self, run: str, request: Request) -> tuple[int, threading.Event]:
        """Returns the number of the run's connection, from 0, and the event for its end."""
        with self._lock:
            left = threading.Event()
            self.seen.setdefault(run, []).append(Seen(request, left))
            self.connections[run] += 1
            return self.connections[run] - 1, left


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def played(self) -> Played:
        return cast(Origin, self.server).played

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/client/"):
            self._whole("text/javascript", (STATIC / url.path[8:]).read_bytes())
        elif url.path == "/play.js":
            self._whole("text/javascript", SCRIPT.read_bytes())
        elif url.path.startswith("/play/"):
            self._play(dict(parse_qsl(url.query, keep_blank_values=True)), url.path)
        else:
            self._whole("text/html", BASED if url.path == "/based" else PAGE)

    do_POST = do_OPTIONS = do_GET

    def _whole(self, type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _play(self, query: dict[str, str], path: str) -> None:
        run = query.get("run", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers)
        number, left = self.played.note(run, request)
        sends = self.played.cases[run.partition("#")[0]].sends
        answer = sends[min(number, len(sends) - 1)]
        try:
            self._send(answer if isinstance(answer, Reply) else answer(request), left)
        except OSError:
            left.set()

    def _send(self, reply: Reply, left: threading.Event) -> None:
        self.close_connection = True
        self.send_response(reply.status)
        if reply.type is not None:
            self.send_header("Content-Type", reply.type)
        for name, value in reply.headers.items():
            self.send_header(name, value.replace("{other}", self.played.origins[1].url))
        self.send_header("Connection", "close")
        self.end_headers()
        for n, piece in enumerate(reply.pieces):
            if n:
                time.sleep(PAUSE)
            self.wfile.write(piece)
        while reply.stays and not self.played.closing.wait(0.05):
            self.wfile.write(b":\n")  # the second write after the client has left fails

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def playing(cases: Mapping[str, Case]) -> Iterator[Played]:
    """Runs the server until the block ends."""
    played = Played(cases)
    threads = [threading.Thread(target=origin.serve_forever, args=(0.05,)) for origin in played.origins]
    for thread in threads:
        thread.start()
    try:
        yield played
    finally:
        played.closing.set()
        for origin, thread in zip(played.origins, threads, strict=True):
            origin.shutdown()
            origin.server_close()
            thread.join()


_numbers = itertools.count()


def orders(cases: Mapping[str, Case], played: Played, transport: str) -> str:
    """Returns the cases of a transport as play.js takes them, each with a run of its own, as JSON."""
    origins = {"same": "", "other": played.origins[1].url}
    found = []
    for name, case in cases.items():
        if transport not in case.transports:
            continue
        run = f"{name}#{next(_numbers)}"
        options = {"transport": "fetch", **case.options} if transport == "fetch" else dict(case.options)
        found.append(
            {
                "run": run,
                "address": case.origin if case.origin not in origins else f"{origins[case.origin]}/play/",
                "options": options,
                "types": case.types,
                "connections": case.connections or len(case.sends),
                "waits": case.waits,
            }
        )
    return json.dumps(found)
