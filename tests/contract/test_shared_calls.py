"""Many greenlets or threads publish at once: they share calls to Redis, and each gets its own outcome."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from flask_sse_push import MessageAnnouncer
from tests.support.greenlets import scripts

Run = Callable[[str, str, str], None]

SET_UP = """
from gevent import monkey
monkey.patch_all()
import random, signal, sys, time
import gevent
from flask_sse_push import BrokerUnavailable, InvalidEvent, MessageAnnouncer

def at_once(*bodies):
    greenlets = [gevent.spawn(body) for body in bodies]
    gevent.joinall(greenlets, timeout=30)
    assert all(each.dead for each in greenlets)
    return [each.exception or each.value for each in greenlets]
"""

BEGIN = """
url, prefix = sys.argv[1:]
announcer = MessageAnnouncer.from_url(url, SSE_PUSH_PREFIX=prefix, SSE_PUSH_HISTORY_SIZE=10_000)
"""


@pytest.fixture
def prefix(redis_url: str) -> Iterator[str]:
    name = "shared"
    with redis.Redis.from_url(redis_url) as client:
        yield name
        for key in client.keys(f"{{{name}:0}}:*"):
            client.delete(key)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Returns a function that runs a script with a URL and a prefix."""
    with scripts(SET_UP) as running:
        yield lambda script, url, prefix: running.run(BEGIN + script, url, prefix)


def stored(client: Any, prefix: str, channel: str) -> list[str]:
    """The data of the events that the broker has kept of a channel."""
    entries = client.lrange(f"{{{prefix}:0}}:list:{channel}", 0, -1)
    return [entry.decode().split("\ndata: ")[1].strip() for entry in entries]


def test_a_hundred_greenlets_publish_at_once_with_ids_and_without(
    run: Run, redis_url: str, prefix: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        run(
            """
def publisher(number):
    def publish():
        return [
            announcer.publish(f"{number} {n}", channel="a", id=f"{number}-{n}" if n % 5 == 4 else None)
            for n in range(20)
        ]
    return publish

cursors = at_once(*map(publisher, range(100)))
assert all(isinstance(each, list) and len(set(each)) == 20 for each in cursors), cursors
assert announcer.publish("99 19", channel="a", id="99-19") == cursors[99][19]
assert isinstance(at_once(lambda: announcer.publish_many([{"data": 1}] * 2, id="99-19"))[0], InvalidEvent)
""",
            redis_url,
            prefix,
        )
        events = [tuple(map(int, each.split())) for each in stored(client, prefix, "a")]
        assert sorted(events) == [(number, n) for number in range(100) for n in range(20)]
        for number in range(100):
            assert [n for of, n in events if of == number] == list(range(20))
        runs = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        # 2,000 without sharing. Each of the 400 events with an id has its own call, which divides the others.
        assert runs < 1400, "the greenlets did not share calls"


def test_threads_share_calls_too(redis_url: str, prefix: str) -> None:
    announcer = MessageAnnouncer.from_url(redis_url, SSE_PUSH_PREFIX=prefix, SSE_PUSH_HISTORY_SIZE=1000)
    with redis.Redis.from_url(redis_url) as client, contextlib.closing(announcer):
        with ThreadPoolExecutor(50) as threads:
            cursors = list(threads.map(lambda n: announcer.publish(str(n), channel="a"), range(500)))
        assert len(set(cursors)) == 500
        assert sorted(map(int, stored(client, prefix, "a"))) == list(range(500))


def test_one_refused_publication_does_not_fail_the_others(run: Run, redis_url: str, prefix: str) -> None:
    base = f"{{{prefix}:0}}"
    keys = [f"~{base}:{name}" for name in ("state", "heads", "once:*", "list:open*", "list:mute")]
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(
            "ACL", "SETUSER", "narrow", "reset", "on", ">secret", "+@all", *keys, f"&{base}:live:open*"
        )
        client.set(f"{base}:list:open-foreign", "the value of another program")
        with client.pubsub() as ear:
            ear.psubscribe(f"{base}:live:*")
            run(
                """
announcer.publish("first", channel="open")
calls = [
    lambda: announcer.publish("leads", channel="open"),
    lambda: announcer.publish("1", channel="open"),
    lambda: announcer.publish("no key", channel="closed"),
    lambda: announcer.publish_many([{"data": "2", "channel": "open"}, {"data": "3", "channel": "open2"}]),
    lambda: announcer.publish("no pub/sub", channel="mute"),
    lambda: announcer.publish("4", channel="open-foreign"),
    lambda: announcer.publish("no pub/sub for one", channel=["open", "mute"]),
    lambda: announcer.publish("no pub/sub, named", channel="mute", id="named"),
    lambda: announcer.publish("5", channel="open", ttl=60),
    lambda: announcer.publish_many([{"data": "no pub/sub", "channel": each} for each in ("open", "mute")]),
]
for _ in range(2):
    outcomes = at_once(*calls)
    fails = [isinstance(each, BrokerUnavailable) for each in outcomes]
    assert fails == [False, False, True, False, True, False, True, True, False, True], outcomes
    assert all("the channel 'mute'" in str(outcomes[at]) for at in (4, 6, 7, 9)), outcomes
""",
                redis_url.replace("://", "://narrow:secret@"),
                prefix,
            )
            sent = [each["data"].decode() for each in iter(lambda: ear.get_message(timeout=0.5), None)
                    if each["type"] == "pmessage"]  # fmt: skip
        assert Counter(stored(client, prefix, "open")) == {"first": 1, "leads": 2, "1": 2, "2": 2, "5": 2}
        assert stored(client, prefix, "open2") == ["3"] * 2
        assert stored(client, prefix, "open-foreign") == ["4"] * 2
        assert stored(client, prefix, "mute") == stored(client, prefix, "closed") == []
        assert sum("data: 2\n" in each for each in sent) == 2
        assert not any("data: no pub/sub" in each for each in sent)
        client.execute_command("ACL", "DELUSER", "narrow")


def test_greenlets_that_end_early_lose_and_double_no_event_of_others(
    run: Run, redis_url: str, prefix: str
) -> None:
    run(
        """
chance = random.Random(5)
done = []

def publisher(number):
    def publish():
        for n in range(30):
            with gevent.Timeout(chance.choice([0.0001, 0.001, 0.003, 9, 9]), False):
                announcer.publish(f"{number} {n}", channel="a")
                done.append(f"{number} {n}")
    return publish

assert not any(at_once(*map(publisher, range(40))))
for start in range(0, len(done), 1000):
    announcer.publish_many([{"data": each, "channel": "done"} for each in done[start : start + 1000]])
""",
        redis_url,
        prefix,
    )
    with redis.Redis.from_url(redis_url) as client:
        events, done = stored(client, prefix, "a"), stored(client, prefix, "done")
    assert len(done) > 300
    assert len(set(events)) == len(events)
    assert set(done) <= set(events)
    for number in range(40):
        own = [int(each.split()[1]) for each in events if each.startswith(f"{number} ")]
        assert own == sorted(own)
