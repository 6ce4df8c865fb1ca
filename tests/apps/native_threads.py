"""An app whose views publish from native threads: threads beside the one that runs gevent's greenlets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import gevent
from flask import Flask, request
from gevent import monkey

from flask_sse_push import MessageAnnouncer, sse

app = Flask(__name__)
app.config["SSE_PUSH_PUBLIC_CHANNELS"] = "*"
app.config["SSE_PUSH_PUBLISH_TIMEOUT"] = 10  # more callers than connections wait for each other
app.register_blueprint(sse, url_prefix="/stream")
announcer = MessageAnnouncer.from_url(os.environ["SSE_PUSH_BROKER_URL"])

# The functions that a library keeps if it was imported before the monkey patching.
start_new_thread = monkey.get_original("_thread", "start_new_thread")
allocate_lock = monkey.get_original("_thread", "allocate_lock")


def in_app(call: Callable[[], Any]) -> Any:
    """Runs `call` in an app context. Returns its result, or its exception as text."""
    with app.app_context():
        try:
            return call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def in_new_thread(call: Callable[[], Any]) -> Any:
    """Runs `call` in a new native thread, and blocks the whole worker until the thread has ended."""
    results: list[Any] = []
    done = allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            results.append(in_app(call))
        finally:
            done.release()

    start_new_thread(body, ())
    return results[0] if done.acquire(True, 10) else "the thread did not end"


def in_pool(call: Callable[[], Any]) -> Any:
    return gevent.get_hub().threadpool.apply(in_app, (call,))


WAYS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "greenlet": in_app,
    "threadpool": in_pool,
    "new thread": in_new_thread,
}
CALLS: dict[str, Callable[[], Any]] = {
    "publish": lambda: sse.publish("x", channel="a"),
    "publish_many": lambda: sse.publish_many([{"data": "x", "channel": "a"}]),
    "notify": lambda: sse.notify("news", 1, channel="a"),
    "broadcast": lambda: sse.broadcast("x"),
    "announcer": lambda: announcer.publish("x", channel="a"),
    "disconnect": lambda: sse.disconnect(user_id="nobody"),
    "revoke": lambda: sse.revoke("nobody", "a"),
    "join": lambda: sse.join("nobody", "b"),
    "stop": lambda: sse.stop("nothing"),
    "presence": lambda: sse.presence("room"),
    "cursor": lambda: sse.cursor("a"),
    "stats": lambda: sse.stats(),
    "connections": lambda: sse.connections(),
    "start": lambda: sse.start(iter(["item"])).started,
}


@app.get("/call")
def call() -> list[Any]:
    """Makes a call `times` times, one after the other."""
    way, what = WAYS[request.args["way"]], CALLS[request.args["what"]]
    return [way(what) for _ in range(request.args.get("times", 1, int))]


@app.get("/at-once")
def at_once() -> list[Any]:
    """Publishes from many native threads and many greenlets at the same time."""
    results: list[Any] = []

    def publish() -> None:
        for _ in range(10):
            results.append(in_app(CALLS["publish"]))

    count = request.args.get("threads", 30, int)
    greenlets = [gevent.spawn(publish) for _ in range(count)]
    for _ in range(count):
        start_new_thread(publish, ())
    gevent.joinall(greenlets)
    deadline = time.monotonic() + 20
    while len(results) < 20 * count and time.monotonic() < deadline:
        gevent.sleep(0.01)
    return results


@app.get("/files")
def files() -> list[int]:
    """The number of open files of the worker."""
    return [len(os.listdir("/proc/self/fd"))]
