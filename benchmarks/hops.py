"""How far an event and a request travel inside the package: `python -m benchmarks.hops`.

Counts the function calls and the source files on two ways. Everything runs in one process, on `memory://`,
with the generator transport, and through a bare WSGI call.

- **publish**: `sse.publish({"text": "hello"}, channel="sse")` with one open stream. Counting starts with the
  call. It ends when the WSGI body has yielded the chunk with the event, the server has asked for the next
  chunk, and all threads wait again. So work that the dispatcher does after writing counts too.
- **GET**: a `GET /stream?channels=sse` through `app.wsgi_app`. Counting starts with the WSGI call and ends
  with the first non-empty chunk of the body. A stream on another channel is open, and others have closed,
  so making the worker's parts and starting its threads do not count. The channel got one event since the
  last stream opened, so this stream is the first one that looks at the channel's present state.

A call is each `call` event of `sys.setprofile` whose code lies in the package's folder, on any thread. So
functions, properties and comprehensions count (from Python 3.12 on, most comprehensions are not calls any
more). Each entry into a generator counts: its start and every resumption. Calls into the standard library,
Flask and Werkzeug do not count.

`files` is the number of distinct files that hold the called code. `changes` is the number of times that a
call lies in another file than the call before. Threads run side by side, so for `changes` and `--list` the
calls are sorted by thread: the thread that made the first call comes first, and each thread's calls keep
their order.

Each way is walked several times after a warm-up. The result is the list of calls that occurred most often,
because now and then a thread's periodic work falls into a round. On Python 3.11, commit 5ecafea takes 112
calls in 28 files for `publish`, and 156 calls in 33 files with 98 changes for `GET`.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from flask import Flask
from werkzeug.test import EnvironBuilder

import flask_sse_push

FOLDER = str(Path(flask_sse_push.__file__).parent) + "/"
#: Rounds that are walked and not counted, and rounds that are counted.
WARM_UP, ROUNDS = 2, 9
#: Seconds without a call after which all threads are taken to wait.
QUIET = 0.03
#: Seconds after which a worker with a stream has told the broker that it has some. Before, an opening stream
#: wakes the thread that does so, which is one call more.
LISTING = 0.3
#: Seconds that one step takes at most.
PATIENCE = 10.0
#: The most calls and files that each way should take.
GOALS = {"publish": (75, 14), "GET": (105, 18)}


class Call(NamedTuple):
    """One call of the package's code."""

    thread: str
    file: str  # relative to the package's folder
    function: str


class Way(NamedTuple):
    """The calls of one way, sorted by thread."""

    name: str
    calls: tuple[Call, ...]

    @property
    def files(self) -> int:
        """How many files the calls lie in."""
        return len({call.file for call in self.calls})

    @property
    def changes(self) -> int:
        """How often a call lies in another file than the call before."""
        return sum(one.file != two.file for one, two in zip(self.calls, self.calls[1:], strict=False))

    @property
    def reached(self) -> bool:
        """Whether the goals for calls and files are met."""
        calls, files = GOALS[self.name]
        return len(self.calls) <= calls and self.files <= files


class Recorder:
    """Notes calls of the package's code on all threads that start while it is installed, and on this one."""

    def __init__(self) -> None:
        self._calls: list[Call] | None = None  # None: not recording
        self.entered = 0  # calls so far, recorded or not

    def __enter__(self) -> Recorder:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            self.entered += 1
            if (calls := self._calls) is not None:
                file = frame.f_code.co_filename.removeprefix(FOLDER)
                calls.append(Call(threading.current_thread().name, file, frame.f_code.co_name))

    def settle(self) -> None:
        """Returns when no thread has called anything of the package for `QUIET` seconds."""
        before = -1
        while before != self.entered:
            before = self.entered
            time.sleep(QUIET)

    def record(self, step: Callable[[], None]) -> tuple[Call, ...]:
        """The calls during `step`, sorted by thread."""
        self.settle()
        calls: list[Call] = []
        self._calls = calls
        try:
            step()
        finally:
            self._calls = None
        return by_thread(calls)


def by_thread(calls: Sequence[Call]) -> tuple[Call, ...]:
    """`calls` sorted by thread, in the order of each thread's first call."""
    threads = list(dict.fromkeys(call.thread for call in calls))
    return tuple(sorted(calls, key=lambda call: threads.index(call.thread)))


def most_frequent(rounds: Iterable[tuple[Call, ...]]) -> tuple[Call, ...]:
    """The list of calls that most rounds agree on; of several, the shortest."""
    counted = Counter(rounds)
    return max(counted, key=lambda calls: (counted[calls], -len(calls)))


def make_app() -> tuple[Flask, flask_sse_push.SSEBlueprint]:
    """A small app with streams at /stream, and its blueprint."""
    app = Flask("hops")
    app.config.update(
        SECRET_KEY="only for counting calls",
        SSE_PUSH_BROKER_URL="memory://",
        SSE_PUSH_TRANSPORT="generator",
        SSE_PUSH_PUBLIC_CHANNELS="sse,other",
    )
    sse = flask_sse_push.SSEBlueprint("sse", __name__)
    app.register_blueprint(sse, url_prefix="/stream")
    return app, sse


def publish_one(sse: flask_sse_push.SSEBlueprint) -> None:
    """Publishes the event whose way is counted."""
    sse.publish({"text": "hello"}, channel="sse")


def get(app: Flask, channel: str = "sse") -> Iterator[bytes]:
    """The body of a new stream, as the WSGI server gets it."""
    environ = EnvironBuilder(path="/stream", query_string=f"channels={channel}").get_environ()
    statuses: list[str] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], error: object = None
    ) -> Callable[..., Any]:
        statuses.append(status)
        return statuses.append

    body = app.wsgi_app(environ, start_response)
    if not statuses[0].startswith("200"):
        raise RuntimeError(f"the stream was answered with {statuses[0]}: {b''.join(body)!r}")
    return iter(body)


def close(body: Iterator[bytes]) -> None:
    """Ends a body as a WSGI server does when the client has left."""
    body.close()  # type: ignore[attr-defined]


def walk_get(recorder: Recorder) -> Way:
    """From a GET to the first byte."""
    app, sse = make_app()
    other = get(app, "other")  # keeps the worker listed in the shared counts
    while not next(other):
        pass
    time.sleep(LISTING)
    rounds = []
    for _ in range(WARM_UP + ROUNDS):
        bodies: list[Iterator[bytes]] = []

        def open_stream(bodies: list[Iterator[bytes]] = bodies) -> None:
            bodies.append(get(app))
            while not next(bodies[0]):
                pass

        rounds.append(recorder.record(open_stream))
        recorder.settle()
        with app.app_context():
            publish_one(sse)
        recorder.settle()
        close(bodies[0])
    close(other)
    return Way("GET", most_frequent(rounds[WARM_UP:]))


def walk_publish(recorder: Recorder) -> Way:
    """From `publish` to the chunk that the WSGI server gets."""
    app, sse = make_app()
    chunks: queue.Queue[bytes] = queue.Queue()

    def serve() -> None:
        for chunk in get(app):
            chunks.put(chunk)

    threading.Thread(target=serve, name="server", daemon=True).start()
    while b"sse.open" not in chunks.get(timeout=PATIENCE):
        pass

    def publish() -> None:
        publish_one(sse)
        while b"hello" not in chunks.get(timeout=PATIENCE):
            pass
        recorder.settle()

    with app.app_context():
        rounds = [recorder.record(publish) for _ in range(WARM_UP + ROUNDS)]
    return Way("publish", most_frequent(rounds[WARM_UP:]))


def walk() -> list[Way]:
    """Both ways."""
    with Recorder() as recorder:
        return [walk_publish(recorder), walk_get(recorder)]


def table(ways: Sequence[Way]) -> list[str]:
    """Counts and goals, a line for each way."""
    lines = [f"{'way':8} {'calls':>6} {'goal':>6} {'files':>6} {'goal':>6} {'changes':>8}  reached"]
    for way in ways:
        calls, files = GOALS[way.name]
        lines.append(
            f"{way.name:8} {len(way.calls):6} {calls:6} {way.files:6} {files:6} {way.changes:8}  "
            f"{'yes' if way.reached else 'no'}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hops")
    parser.add_argument("--list", action="store_true", help="all calls: thread, file, function")
    parser.add_argument("--json", action="store_true", help="the counts as one JSON object")
    parser.add_argument("--goal", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args(arguments)
    ways = walk()
    if options.json:
        counts = {
            way.name: {"calls": len(way.calls), "files": way.files, "changes": way.changes} for way in ways
        }
        print(json.dumps(counts))
    else:
        print("\n".join(table(ways)))
    if options.list:
        for way in ways:
            print(f"\n{way.name}:")
            for number, call in enumerate(way.calls, 1):
                print(f"{number:4}  {call.thread:24} {call.file:28} {call.function}")
    return int(options.goal and not all(way.reached for way in ways))


if __name__ == "__main__":
    sys.exit(main())
