"""The publishing process: puts time stamps into events and sends them. It runs on the clients' core.

    python -m benchmarks.publisher KIND TARGET --channel bench --count 200 --rate 20 --size 200 --batch 1

`%d` in the channel becomes the event's number modulo --spread. With --greenlets, so many greenlets share the
events, and each sends its own one after another. The process prints one JSON line: the number
of events, the seconds, its own CPU seconds, and the last cursor if the kind has cursors. The stamp is
CLOCK_MONOTONIC in nanoseconds, as loadgen expects it. Each kind imports its own library, so a run needs only
the library of its kind.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

from .http_client import Pipeline

Message = tuple[str, str]  # channel and data
Send = Callable[[list[Message]], object]


def event_data(number: int, size: int) -> str:
    """Returns JSON of `size` bytes (more if `size` is too small) that begins with the stamp."""
    head = f'{{"t":{time.monotonic_ns()},"n":{number},"x":"'
    return head + "x" * (size - len(head) - 2) + '"}'


def announcer(url: str) -> Send:
    from flask_sse_push import MessageAnnouncer

    announcer = MessageAnnouncer.from_url(url)

    def send(messages: list[Message]) -> object:
        if len(messages) == 1:
            channel, data = messages[0]
            return announcer.publish(data, channel=channel)
        return announcer.publish_many({"data": data, "channel": channel} for channel, data in messages)[-1]

    return send


def flask_sse(url: str) -> Send:
    from flask import Flask
    from flask_sse import sse

    app = Flask(__name__)
    app.config["REDIS_URL"] = url
    app.app_context().push()

    def send(messages: list[Message]) -> None:
        for channel, data in messages:
            sse.publish(data, channel=channel)

    return send


def plain_redis(url: str) -> Send:
    import redis

    client = redis.Redis.from_url(url)

    def send(messages: list[Message]) -> None:
        pipeline = client.pipeline(transaction=False)
        for channel, data in messages:
            pipeline.publish(channel, data)
        pipeline.execute()

    return send


def evalsha(url: str) -> Send:
    """Sends one EVALSHA per event that does the least a history needs: what redis-py itself costs."""
    import redis

    client = redis.Redis.from_url(url)
    script = client.script_load(
        "redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('LTRIM', KEYS[1], -1000, -1) "
        "return redis.call('PUBLISH', KEYS[1], ARGV[1])"
    )

    def send(messages: list[Message]) -> None:
        for channel, data in messages:
            client.evalsha(script, 1, channel, data)

    return send


def http_post(address: str) -> Send:
    """Sends one POST per event with the channel in the query, as nchan expects it. Pipelines a batch."""
    pipeline = Pipeline(address)

    def send(messages: list[Message]) -> None:
        pipeline.post([(f"/publish?channel={channel}", data) for channel, data in messages])

    return send


def http_lines(address: str) -> Send:
    """Sends one POST per batch, with lines `channel data`, to the benchmark's own route in in-process
    servers."""
    pipeline = Pipeline(address)

    def send(messages: list[Message]) -> None:
        pipeline.post([("/publish", "\n".join(f"{channel} {data}" for channel, data in messages))])

    return send


KINDS: dict[str, Callable[[str], Send]] = {
    "announcer": announcer,
    "flask-sse": flask_sse,
    "redis": plain_redis,
    "evalsha": evalsha,
    "http-post": http_post,
    "http-lines": http_lines,
}


def publish(send: Send, channel: str, spread: int, count: int, rate: float, size: int, batch: int) -> object:
    """Sends all events; returns the result of the last `send`.

    :param rate: Events per second; 0 means as fast as possible.
    """
    answer: object = None
    started = time.monotonic()
    for first in range(0, count, batch):
        if rate:
            time.sleep(max(0.0, started + first / rate - time.monotonic()))
        numbers = range(first, min(first + batch, count))
        answer = send([(channel.replace("%d", str(n % spread)), event_data(n, size)) for n in numbers])
    return answer


def at_once(body: Callable[[], object], greenlets: int) -> object:
    """Calls `body` in each of the greenlets. Returns the result of the first."""
    import gevent

    return gevent.joinall([gevent.spawn(body) for _ in range(greenlets)], raise_error=True)[0].value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publisher")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("target", help="redis://… or host:port")
    parser.add_argument("--channel", default="bench")
    parser.add_argument("--spread", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--greenlets", type=int, default=1)
    options = parser.parse_args()
    if options.greenlets > 1:
        from gevent import monkey

        monkey.patch_all()
    send = KINDS[options.kind](options.target)
    count = options.count // options.greenlets
    publish_own = partial(
        publish, send, options.channel, options.spread, count, options.rate, options.size, options.batch
    )
    started, cpu = time.monotonic(), time.process_time()
    answer = publish_own() if options.greenlets == 1 else at_once(publish_own, options.greenlets)
    report = {
        "events": count * options.greenlets,
        "seconds": time.monotonic() - started,
        "cpu_s": time.process_time() - cpu,
        "cursor": answer if isinstance(answer, str) else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
