"""An event is stored once, even if the reply is lost and the publish is repeated: FAULTS 8."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing

import pytest
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.brokers.redis.broker import RedisBroker
from flask_sse_push.brokers.redis.client import Clients
from flask_sse_push.config import Settings
from tests.support.fault_setup import Valkey, stored_serials
from tests.support.measurements import Measurements
from tests.support.policies import keeping
from tests.support.proxy import Proxy

COUNT = 1000


def without_retries(port: int) -> MessageAnnouncer:
    return MessageAnnouncer.from_url(f"redis://127.0.0.1:{port}/0", SSE_PUSH_HISTORY_SIZE=2 * COUNT)


def with_retries_of_redis_py(port: int) -> MessageAnnouncer:
    """Uses a redis-py client that itself runs a script again after an error."""
    broker = RedisBroker(
        Clients(lambda: redis.ConnectionPool(port=port)), keeping(2 * COUNT, 600), "sse", 2.0
    )
    return MessageAnnouncer(broker, Settings())


@pytest.mark.parametrize("announcer_on", [without_retries, with_retries_of_redis_py])
def test_08_no_event_is_stored_twice_when_replies_are_lost(
    announcer_on: object, valkey: Valkey, chance: random.Random, measurements: Measurements
) -> None:
    assert callable(announcer_on)
    returned: dict[int, str] = {}
    raised = 0
    with Proxy(valkey.port) as proxy, closing(announcer_on(proxy.port)) as announcer:
        announcer.publish("the script is there now")
        for n in range(COUNT):
            drawn = chance.random()
            proxy.replies.drop_next(1 if drawn < 0.1 else 2 if drawn < 0.12 else 0)
            while n not in returned:
                try:
                    returned[n] = announcer.publish({"n": n}, channel="a", id=f"id-{n}" if n % 2 else None)
                except BrokerUnavailable:
                    raised += 1
                    if n % 2 == 0:
                        break  # without an id it must not be repeated
            proxy.replies.drop_no_more()
        dropped = proxy.replies.dropped
    with valkey.client() as client:
        entries = client.lrange("{sse:0}:list:a", 0, -1)
        runs = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    serials = Counter(stored_serials(entries))
    stored_at = {
        n: int(entry.split(b" ")[1]) for n, entry in zip(stored_serials(entries), entries, strict=True)
    }
    measurements.note(published=COUNT, replies_lost=dropped, raised=raised, script_runs=runs)
    measurements.note(twice=sum(count > 1 for count in serials.values()))
    assert dropped > 60
    assert runs > COUNT + 50, "no script was run again"
    assert set(serials.values()) == {1}
    assert set(returned) <= set(serials)
    assert all(returned[n].endswith(base36(stored_at[n])) for n in returned)


def base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
