"""The short way of publish_one.lua does what publish.lua does. It leaves unusual cases to publish.lua."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.brokers.redis import declared, publish_call
from flask_sse_push.brokers.redis.scripts import script
from flask_sse_push.protocol.entry import Publication

from .test_redis import Store

#: A tenth of a second of the broker's clock: publish.lua serves its first call.
TENTH = 100_000

Damage = Callable[[Store], object]


def state(field: str, value: str) -> Damage:
    return lambda store: store.client.hset(store.base + "state", field, value)


def head(score: object) -> Damage:
    return lambda store: store.client.zadd(store.base + "heads", {"a": score})


def removed(*keys: str) -> Damage:
    return lambda store: store.client.delete(*[store.base + key for key in keys])


def wrong_type(key: str) -> Damage:
    def replace(store: Store) -> None:
        store.client.delete(store.base + key)
        store.client.set(store.base + key, "x")

    return replace


def above_last(store: Store) -> None:
    head(int(store.client.hget(store.base + "state", "last")) + 7)(store)


DAMAGES: dict[str, Damage] = {
    "nothing": lambda store: None,
    "no state": removed("state"),
    "no heads": removed("heads"),
    "no list": removed("list:a"),
    "nothing at all": removed("state", "heads", "list:a"),
    "a state of another type": wrong_type("state"),
    "heads of another type": wrong_type("heads"),
    "a list of another type": wrong_type("list:a"),
    "no head": lambda store: store.client.zrem(store.base + "heads", "a"),
    "a head above last": above_last,
    "an infinite head": head("inf"),
    "a head with a fraction": head(1.5),
    "a negative head": head(-7),
    "a head of 0": head(0),
    "another epoch": state("epoch", "zzzz"),
    "an epoch of a shard": state("epoch", "01zzzz"),
    "no valid epoch": state("epoch", "Zz zz"),
    "no epoch": lambda store: store.client.hdel(store.base + "state", "epoch"),
    "no valid secret": state("secret", "x"),
    "too long a secret": state("secret", "zzzz " + "0" * 99),
    "no secret": lambda store: store.client.hdel(store.base + "state", "secret"),
    "no valid last": state("last", "many"),
    "too high a last": state("last", "9100000000000000"),
    "a last of 0": state("last", "0"),
    "a negative last": state("last", "-1"),
    "no last": lambda store: store.client.hdel(store.base + "state", "last"),
    "no valid horizon": state("horizon", "1e3"),
    "a horizon above last": state("horizon", "8999999999999999"),
    "another server": state("server", "0" * 40),
    "a part of the server's name": lambda store: state(
        "server", store.client.hget(store.base + "state", "server")[:9]
    )(store),
    "no server": lambda store: store.client.hdel(store.base + "state", "server"),
    "other policies": state("policies", "0123456789ab"),
    "no policies": lambda store: store.client.hdel(store.base + "state", "policies"),
    "no valid longest": state("longest", "x y"),
    "lists kept for a shorter time": state("longest", "1 9000000000000000"),
    "lists kept for a longer time, long ago": state("longest", "99999999 1"),
}


@contextlib.contextmanager
def opened(url: str) -> Iterator[Store]:
    store = Store(url)
    try:
        yield store
    finally:
        store.broker.close()
        store.client.delete(*store.client.keys(store.base + "*"))
        store.client.close()


def prepare(store: Store) -> int:
    """Publishes events, and moves `last` ahead of the clock. Returns `last`.

    So the next id is one higher, in the same tenth of a second, and the next event may take the short way.
    """
    for channel in ("a", "b", "a"):
        store.publish(f"for {channel}", channel)
    last = store.publish("newest", "a").id // TENTH * TENTH + 100 * TENTH
    store.client.hset(store.base + "state", "last", last)
    return last


def outcome(store: Store, damage: Damage) -> dict[str, Any]:
    """What keys and publisher have after an event that follows a damage, without epochs and clocks."""
    last = prepare(store)
    epoch = store.client.hget(store.base + "state", "epoch")
    damage(store)
    cursor = store.publish("after", "a")
    found = store.client.hgetall(store.base + "state")
    entries = store.client.lrange(store.base + "list:a", 0, -1)
    head, _, body = entries[-1].partition("\n")
    of, id, prev, meta = head.split(" ")
    scores = store.client.zrange(store.base + "heads", 0, -1, withscores=True)
    heads = {name: score == cursor.id for name, score in scores}
    return {
        "the same epoch": cursor.epoch == epoch == found["epoch"] == of,
        "the next id": cursor.id == last + 1,
        "last": int(found["last"]) == cursor.id == int(id),
        "prev": (int(prev) < 0, last - TENTH * 101 < int(prev) <= last),
        "meta": meta,
        "body": body,
        "texts": [each.split("data: ")[-1] for each in entries],
        "heads": heads,
        "longest": found["longest"] if found["longest"].endswith(" 1") else found["longest"].split(" ")[0],
        "policies": found["policies"],
        "fields": sorted(found),
        "times": [store.client.pttl(store.base + key) > 0 for key in ("list:a", "list:b", "state", "heads")],
        "calls": len(store.client.keys(store.base + "once:*")),
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_event_that_follows_a_damage_is_stored_as_publish_lua_stores_it(
    redis_url: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "_seen", {})  # else a warning would follow when the tests end
    with opened(redis_url) as store:
        found = outcome(store, DAMAGES[damage])
    monkeypatch.setattr(publish_call, "script", lambda *names, first: script(*names))
    with opened(redis_url) as store:
        assert found == outcome(store, DAMAGES[damage])


def calls(store: Store, *commands: str) -> list[int]:
    """How often commands have run on the server."""
    stats = store.client.info("commandstats")
    return [stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in commands]


def test_the_usual_event_takes_the_short_way(redis_url: str) -> None:
    with opened(redis_url) as store:
        prepare(store)
        store.client.config_resetstat()
        store.publish("short", "a")
        assert calls(store, "zrevrange", "publish", "rpush", "zadd", "set") == [0, 1, 1, 1, 1]
        store.publish("a new channel", "c")
        assert calls(store, "zrevrange", "publish") == [1, 2]


def test_the_first_event_of_each_tenth_of_a_second_takes_the_long_way(redis_url: str) -> None:
    with opened(redis_url) as store:
        last = prepare(store) + TENTH - 2
        store.client.hset(store.base + "state", "last", last)
        store.client.zadd(store.base + "heads", {"b": last + 2})  # only publish.lua looks at it
        store.client.config_resetstat()
        first = store.publish("the last of its tenth", "a")
        assert calls(store, "zrevrange") == [0]
        assert first.id == last + 1
        store.client.zadd(store.base + "heads", {"b": last + 9})
        assert store.publish("the first of its tenth", "a").epoch != first.epoch
        assert calls(store, "zrevrange")[0] > 0


def test_only_as_many_entries_as_the_policy_says_are_kept(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "_seen", {})
    with opened(redis_url) as store:
        prepare(store)
        few = store.another(history_size=3)
        with contextlib.closing(few):
            few.declare()
            store.client.config_resetstat()
            for text in ("1", "2", "3", "4"):
                few.publish([Publication(b"data: %b\n\n" % text.encode(), ("a",))])
            assert calls(store, "zrevrange", "ltrim") == [0, 4]
            assert store.texts() == [b"2", b"3", b"4"]


def test_a_refused_live_message_leaves_no_event(redis_url: str) -> None:
    with opened(redis_url) as store:
        prepare(store)
        user = f"user-{uuid.uuid4().hex}"
        rights = ["reset", "on", ">secret", "+@all", "~*"]
        store.client.execute_command("ACL", "SETUSER", user, *rights, f"&{store.base}live:b")
        narrow = MessageAnnouncer.from_url(
            redis_url.replace("://", f"://{user}:secret@"), SSE_PUSH_PREFIX=store.prefix
        )
        try:
            before = store.client.lrange(store.base + "list:a", 0, -1)
            with pytest.raises(BrokerUnavailable, match="may not send to the channel 'a'"):
                narrow.publish("ghost", channel="a")
            assert store.client.lrange(store.base + "list:a", 0, -1) == before
            newest = store.publish("allowed", "a")
            assert store.ids()[-2:] == [int(before[-1].split(" ")[1]), newest.id]
            assert store.past(0)[1].entries[-1].prev == store.ids()[-2]
        finally:
            narrow.close()
            store.client.execute_command("ACL", "DELUSER", user)


def test_a_server_without_memory_stores_nothing(redis_url: str) -> None:
    with opened(redis_url) as store:
        prepare(store)
        before = store.texts()
        store.client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(BrokerUnavailable, match="OOM"):
                store.publish("ghost", "a")
        finally:
            store.client.config_set("maxmemory", "0")
        assert store.texts() == before
