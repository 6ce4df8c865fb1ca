"""The bare generator: one gevent queue per client, without history, heartbeats or limits.

A Flask developer may write this by hand. It is the cheapest form: it encodes an event once, and sends a
client all the events in its queue as one chunk. One greenlet reads Redis for all clients.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import gevent
import redis
from flask import Flask, Response, request
from gevent.queue import SimpleQueue

app = Flask(__name__)
queues: dict[bytes, set[SimpleQueue[bytes]]] = defaultdict(set)
reader: list[gevent.Greenlet[..., None]] = []


def read_redis() -> None:
    subscription = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"]).pubsub()  # type: ignore[no-untyped-call]
    subscription.psubscribe("*")
    for number, message in enumerate(subscription.listen()):
        if message["type"] == "pmessage":
            frame = b"id: %d\ndata: %s\n\n" % (number, message["data"])
            for queue in queues.get(message["channel"], ()):
                queue.put(frame)


def frames(channels: list[bytes]) -> Iterator[bytes]:
    queue: SimpleQueue[bytes] = SimpleQueue()
    for channel in channels:
        queues[channel].add(queue)
    try:
        yield b"event: open\ndata: {}\n\n"
        while True:
            pending = [queue.get()]
            while not queue.empty():
                pending.append(queue.get())
            yield b"".join(pending)
    finally:
        for channel in channels:
            queues[channel].discard(queue)


@app.get("/stream")
def stream() -> Response:
    if not reader:
        reader.append(gevent.spawn(read_redis))
    channels = request.args["channels"].encode().split(b",")
    return Response(frames(channels), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})
