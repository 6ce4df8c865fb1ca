"""How many calls and files do an event and a request take inside the package? `python -m benchmarks.hops`.

It counts the function calls and the source files on two paths. Everything runs in one process, on
`memory://`, with the generator transport, and through a bare WSGI call.

- **publish**: `sse.publish({"text": "hello"}, channel="sse")` with one open stream. Counting starts with the
  call. It ends when the WSGI body has yielded the chunk with the event, the server has asked for the next
  chunk, and all threads wait again. So work that the dispatcher does after writing counts too.
- **GET**: a `GET /stream?channels=sse` through `app.wsgi_app`. Counting starts with the WSGI call and ends
  with the first non-empty chunk of the body. A stream on another channel is open, and earlier streams have
  closed, so the count does not include creating the worker's objects and starting its threads. The channel
  has got one event since the last stream opened, so this stream is the first that reads the channel's current
  state.

A call is each `call` event of `sys.setprofile` whose code lies in the package's folder, on any thread. So
functions, properties and comprehensions count (from Python 3.12 on, most comprehensions are not calls any
more). Each entry into a generator counts: its start and every resumption. Calls into the standard library,
Flask and Werkzeug do not count.

`files` is the number of distinct files that hold the called code. `changes` is the number of times that a
call lies in another file than the call before. Threads run side by side, so for `changes` and `--list` the
calls are sorted by thread: the thread that made the first call comes first, and each thread's calls keep
their order.

Each path is measured several times after a warm-up. The result is the shortest list of calls that occurred
twice: a thread's periodic work may fall into a round, on a busy machine even into most rounds, and adds
calls. On Python 3.11, commit 5ecafea takes 112 calls in 28 files for `publish`, and 156 calls in 33 files
with 98 changes for `GET`.
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
#: Rounds that do not count, and rounds that count.
WARM_UP, ROUNDS = 2, 9
#: Seconds without a call after which all threads are assumed to wait.
QUIET = 0.03
#: Seconds after which a worker with a stream has listed itself with the broker. Before that, an opening
#: stream wakes the thread that lists the worker, which adds one call.
LISTING = 0.3
#: Seconds after which a step fails.
PATIENCE = 10.0
#: The most calls and files that each path should take.
GOALS = {"publish": (75, 14), "GET": (105, 18)}


class Call(NamedTuple):
    """One call of the package's code."""

    thread: str
    file: str  # relative to the package's folder
    function: str


class Trace(NamedTuple):
    """The calls of one path, sorted by thread."""

    name: str
    calls: tuple[Call, ...]

    @property
    def files(self) -> int:
        """Returns the number of files that hold the called code."""
        return len({call.file for call in self.calls})

    @property
    def changes(self) -> int:
        """Returns how often a call lies in another file than the previous call."""
        return sum(one.file != two.file for one, two in zip(self.calls, self.calls[1:], strict=False))

    @property
    def reached(self) -> bool:
        """Whether the calls and the files are within the goals."""
        calls, files = GOALS[self.name]
        return len(self.calls) <= calls and self.files <= files


class Recorder:
    """Records calls of the package's code, on this thread and on threads that start while it is installed."""

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
        """Blocks until no thread has called the package's code for `QUIET` seconds."""
        before = -1
        while before != self.entered:
            before = self.entered
            time.sleep(QUIET)

    def record(self, step: Callable[[], None]) -> tuple[Call, ...]:
        """Returns the calls during `step`, sorted by thread."""
        self.settle()
        calls: list[Call] = []
        self._calls = calls
        try:
            step()
        finally:
            self._calls = None
        return by_thread(calls)


def by_thread(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Returns `calls` sorted by thread, in the order of each thread's first call."""
    threads = list(dict.fromkeys(call.thread for call in calls))
    return tuple(sorted(calls, key=lambda call: threads.index(call.thread)))


def without_periodic_work(rounds: Iterable[tuple[Call, ...]]) -> tuple[Call, ...]:
    """Returns the shortest list of calls that occurred in at least two rounds; if none did, the shortest."""
    counted = Counter(rounds)
    return min(counted, key=lambda calls: (counted[calls] < 2, len(calls)))


def make_app() -> tuple[Flask, flask_sse_push.SSEBlueprint]:
    """Returns a small app with streams at /stream, and its blueprint."""
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
    """Publishes the event whose calls are counted."""
    sse.publish({"text": "hello"}, channel="sse")


def get(app: Flask, channel: str = "sse") -> Iterator[bytes]:
    """Opens a stream. Returns its body, as the WSGI server gets it."""
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
    """Closes a body, as a WSGI server does when the client has left."""
    body.close()  # type: ignore[attr-defined]


def measure_get(recorder: Recorder) -> Trace:
    """Records the path from a GET to the first byte."""
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
    return Trace("GET", without_periodic_work(rounds[WARM_UP:]))


def measure_publish(recorder: Recorder) -> Trace:
    """Records the path from `publish` to the chunk that the WSGI server gets."""
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
    return Trace("publish", without_periodic_work(rounds[WARM_UP:]))


def measure() -> list[Trace]:
    """Records both paths."""
    with Recorder() as recorder:
        return [measure_publish(recorder), measure_get(recorder)]


def table(traces: Sequence[Trace]) -> list[str]:
    """Returns the counts and goals, with a line for each path."""
    lines = [f"{'path':8} {'calls':>6} {'goal':>6} {'files':>6} {'goal':>6} {'changes':>8}  reached"]
    for trace in traces:
        calls, files = GOALS[trace.name]
        lines.append(
            f"{trace.name:8} {len(trace.calls):6} {calls:6} {trace.files:6} {files:6} {trace.changes:8}  "
            f"{'yes' if trace.reached else 'no'}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hops")
    parser.add_argument("--list", action="store_true", help="all calls: thread, file, function")
    parser.add_argument("--json", action="store_true", help="the counts as one JSON object")
    parser.add_argument("--goal", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args(arguments)
    traces = measure()
    if options.json:
        counts = {
            trace.name: {"calls": len(trace.calls), "files": trace.files, "changes": trace.changes}
            for trace in traces
        }
        print(json.dumps(counts))
    else:
        print("\n".join(table(traces)))
    if options.list:
        for trace in traces:
            print(f"\n{trace.name}:")
            for number, call in enumerate(trace.calls, 1):
                print(f"{number:4}  {call.thread:24} {call.file:28} {call.function}")
    return int(options.goal and not all(trace.reached for trace in traces))


if __name__ == "__main__":
    sys.exit(main())
