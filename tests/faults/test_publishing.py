"""Publishes whose replies are lost are stored once, whoever tries again: FAULTS 8."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing

import pytest
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.brokers.base import Bounds
from flask_sse_push.brokers.redis.broker import RedisBroker
from flask_sse_push.config import Settings
from tests.support.figures import Counters
from tests.support.proxy import Proxy
from tests.support.scene import Valkey, stored_serials

COUNT = 1000


def ours(port: int) -> MessageAnnouncer:
    return MessageAnnouncer.from_url(f"redis://127.0.0.1:{port}/0", SSE_PUSH_HISTORY_SIZE=2 * COUNT)


def with_retries_of_redis_py(port: int) -> MessageAnnouncer:
    """What redis-py does by itself: it runs a script again and says nothing."""
    broker = RedisBroker(redis.Redis(port=port), Bounds(2 * COUNT, 600), "sse", 2.0)
    return MessageAnnouncer(broker, Settings())


@pytest.mark.parametrize("announcer_on", [ours, with_retries_of_redis_py])
def test_08_a_lost_reply_stores_nothing_twice(
    announcer_on: object, valkey: Valkey, chance: random.Random, figures: Counters
) -> None:
    assert callable(announcer_on)
    returned: dict[int, str] = {}
    raised = 0
    with Proxy(valkey.port) as proxy, closing(announcer_on(proxy.port)) as announcer:
        announcer.publish("the script is there now")
        for n in range(COUNT):
            dice = chance.random()
            proxy.replies.drop_next(1 if dice < 0.1 else 2 if dice < 0.12 else 0)
            while n not in returned:
                try:
                    returned[n] = announcer.publish({"n": n}, channel="a", id=f"id-{n}" if n % 2 else None)
                except BrokerUnavailable:
                    raised += 1
                    if n % 2 == 0:
                        break  # not to be repeated without an id
            proxy.replies.drop_no_more()
        dropped = proxy.replies.dropped
    with valkey.client() as client:
        entries = client.lrange("{sse:0}:list:a", 0, -1)
        runs = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    serials = Counter(stored_serials(entries))
    stored_at = {
        n: int(entry.split(b" ")[1]) for n, entry in zip(stored_serials(entries), entries, strict=True)
    }
    figures.note(published=COUNT, replies_lost=dropped, raised=raised, script_runs=runs)
    figures.note(twice=sum(count > 1 for count in serials.values()))
    assert dropped > 60
    assert runs > COUNT + 50, "nothing was run again"
    assert set(serials.values()) == {1}
    assert set(returned) <= set(serials)
    assert all(returned[n].endswith(base36(stored_at[n])) for n in returned)


def base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
