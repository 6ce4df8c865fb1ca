"""An app whose functions raise what a test asks for, and whose views end threads of the package.

The rules, the loader and the receivers of the signals raise an error of the class in `broken["error"]`, or
wait for ever if it is `hang`. `?user=` in a request names the user.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import gevent
from flask import Flask, Request, jsonify, request
from greenlet import GreenletExit, greenlet, settrace
from werkzeug import Response

from flask_sse_push import event_published, history_lost, sse, stream_closed, stream_opened
from flask_sse_push.brokers import native_threads
from flask_sse_push.hub import background, dispatcher
from flask_sse_push.presence.worker_counts import WorkerCounts

from .inspected import app

__all__ = ["app"]

ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "Timeout": gevent.Timeout,
    "GreenletExit": GreenletExit,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
}
SIGNALS = (stream_opened, stream_closed, history_lost, event_published)
dispatcher.MAX_RUN = 5  # the dispatcher lets other greenlets run after so many streams

broken: dict[str, str] = {}  # which error each function raises, by the function's name
calls: Counter[str] = Counter()


def misbehave(name: str) -> None:
    calls[name] += 1
    what = broken.get(name)
    if what == "hang":
        threading.Event().wait()
    elif what is not None:
        raise ERRORS[what]


@sse.identify
def identify(request: Request) -> str | None:
    return request.args.get("user")


@sse.load_user
def load_user(id: str) -> str:
    misbehave("load_user")
    return id


@sse.authorize
def authorize(user: str | None, channel: str) -> bool:
    if not request:
        misbehave("authorize")
    return user is not None


@sse.authorize_admin
def operator(user: str | None) -> bool:
    return True


def connect(name: str) -> Any:
    def receiver(sender: Flask, **facts: Any) -> None:
        if not request:  # a receiver has no request, not even the one that started its thread
            misbehave(name)

    return receiver


receivers = [connect(signal.name) for signal in SIGNALS]
for signal, receiver in zip(SIGNALS, receivers, strict=True):
    signal.connect(receiver, app)


@app.post("/break")
def break_functions() -> Response:
    """Sets which error each function raises from now on. Returns how often each was called."""
    broken.clear()
    broken.update(request.get_json())
    return jsonify(calls)


@app.get("/calls")
def show_calls() -> Response:
    """How often each function was called."""
    return jsonify(calls)


@app.post("/start/<key>")
def start(key: str) -> Response:
    """Starts a run of numbers. `seconds` bounds the start by a gevent.Timeout."""
    with gevent.Timeout(float(request.args.get("seconds", "60"))):
        run = sse.start(count_slowly(int(request.args.get("numbers", "100000"))), key)
    return jsonify(started=run.started)


@app.post("/join/<connection>/<channel>")
def join(connection: str, channel: str) -> str:
    sse.join(connection, channel)
    return "joined"


def count_slowly(numbers: int) -> Iterator[str]:
    for number in range(numbers):
        yield f"{number} "
        time.sleep(0.01)
        misbehave("producer")


# -- ending threads --------------------------------------------------------------------------------------


def own_threads() -> dict[str, gevent.Greenlet[..., Any]]:
    """The greenlets of the package's threads, by the threads' names. The last letter tells equal names."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and id(each) in names]
    return {
        names[id(each)].removeprefix("flask-sse-push-"): each
        for each in found
        if names[id(each)].startswith("flask-sse-push-") and not each.dead
    }


@app.get("/threads")
def threads() -> Response:
    """The names of the threads of the package, each with a number that no later thread has."""
    return jsonify({name: _number(each) for name, each in own_threads().items()})


_numbers: dict[int, tuple[gevent.Greenlet[..., Any], int]] = {}


def _number(thread: gevent.Greenlet[..., Any]) -> int:
    return _numbers.setdefault(id(thread), (thread, len(_numbers)))[1]


@app.post("/end/<name>")
def end(name: str) -> Response:
    """Ends a thread by an error. With `inside`, waits until the thread is in that function.

    The answer says in which functions the thread was.
    """
    thread, inside = own_threads()[name], request.args.get("inside")
    with gevent.Timeout(50):
        while inside and inside not in _functions(thread):
            gevent.sleep(0)
    was_in = _functions(thread)
    thread.kill(ERRORS[request.args["error"]](), timeout=10)
    return jsonify(dead=thread.dead, was_in=was_in, ended=background.ended())


def _functions(thread: greenlet) -> list[str]:
    names, frame = [], thread.gr_frame
    while isinstance(frame, FrameType):
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


@app.post("/end-courier")
def end_courier() -> Response:
    """Ends the thread that serves native threads, while a native thread waits for it.

    Publishes from a native thread before and after.
    """
    pool = gevent.get_hub().threadpool
    pool.apply(_publish_in_app)
    waiting = pool.spawn(_wait_in_courier)
    gevent.sleep(0.2)
    native_threads.run_in_courier(_exit)
    return jsonify(interrupted=waiting.get(timeout=10), cursor=pool.apply(_publish_in_app))


def _wait_in_courier() -> str:
    try:
        native_threads.run(lambda: gevent.sleep(60))
    except OSError as error:
        return repr(error)
    return "was not interrupted"


def _exit() -> None:
    raise SystemExit


def _publish_in_app() -> str:
    with app.app_context():
        return sse.publish("from a native thread", channel="room:1")


@app.get("/held")
def held() -> Response:
    """What streams and runs hold: the counts of this worker, runs, places."""
    streaming = app.extensions["sse_push"][sse].services.streaming
    counts: WorkerCounts = streaming.worker_counts
    return jsonify(
        counts={f"{key.table} {key.name}": count for key, count in counts._counts.items() if count},
        unreported=counts.unreported(),
        streams=len(streaming.hub),
        runs=len(streaming.runs),
        places=streaming.runs._places_taken,
        caches=sorted(
            name
            for shard in streaming.hub._shards.all
            for name, cache in shard.history_cache.caches.items()
            if name not in shard.history_cache.idle
        ),
    )


@app.post("/restart")
def restart() -> str:
    """Closes all parts of the package. The next request makes new ones, and starts their threads."""
    services = app.extensions["sse_push"][sse].services
    services.restart(services.settings)
    return "restarted"


# -- interrupting requests -------------------------------------------------------------------------------


class Interruptions:
    """A middleware that interrupts requests: `X-Interrupt: 3 Timeout` raises the error at the third switch.

    A switch is a moment at which the request's greenlet waits for anything. `X-Interrupt: publish Timeout`
    raises the error at the first switch inside a function of that name. `places` says where each interrupted
    request was.
    """

    def __init__(self, wsgi_app: Any) -> None:
        self._wsgi_app = wsgi_app
        self.places: list[list[str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        wanted = environ.get("HTTP_X_INTERRUPT")
        if wanted is not None:
            where, error = wanted.split()
            self._interrupt(where, ERRORS[error])
        return self._wsgi_app(environ, start_response)

    def _interrupt(self, where: str, error: type[BaseException]) -> None:
        victim, switches = gevent.getcurrent(), itertools.count(1)

        def trace(event: str, switch: tuple[greenlet, greenlet]) -> None:
            if switch[0] is victim and (str(next(switches)) == where or where in _functions(victim)):
                settrace(None)
                gevent.get_hub().loop.run_callback(self._throw, victim, error)

        settrace(trace)

    def _throw(self, victim: greenlet, error: type[BaseException]) -> None:
        self.places.append(_functions(victim))
        victim.throw(error())


interruptions = Interruptions(app.wsgi_app)
app.wsgi_app = interruptions  # type: ignore[method-assign]


@app.get("/interrupted")
def interrupted() -> Response:
    """In which functions the interrupted requests were, since the last call."""
    places, interruptions.places = interruptions.places, []
    return jsonify(places)
