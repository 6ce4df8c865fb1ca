"""Channel policies in the brokers: what each keeps of a channel's history, also with several publishers."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from flask_sse_push.brokers import forks
from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.redis import declared
from flask_sse_push.brokers.redis.broker import RedisBroker, ShardNumber
from flask_sse_push.brokers.redis.client import Clients
from flask_sse_push.brokers.redis.declared import DeclaredPolicies
from flask_sse_push.brokers.redis.surroundings import surroundings
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.cli.doctor.policies import examine_policies
from flask_sse_push.config import ChannelPolicies, Settings
from flask_sse_push.config.channel_policies import ChannelRule
from flask_sse_push.protocol.entry import Publication
from tests.support.deadline import eventually
from tests.support.policies import keeping

from .conftest import MakeBroker
from .test_broker import history_of, ids, publish
from .test_redis import Store

RULES = (
    ChannelRule("user:*", history=2),
    ChannelRule("news", bytes=60),
    ChannelRule("brief:*", ttl=0.3),
)


def texts(broker: Broker, channel: str) -> list[str]:
    found = history_of(broker, 0, channel).entries
    return [entry.frame.split(b"data: ")[1].strip().decode() for entry in found]


def test_each_channel_keeps_what_its_policy_says(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=4, channels=RULES)
    for number in range(6):
        broker.publish([Publication(b"data: %d\n\n" % number, ("user:7", "other"))])
    assert texts(broker, "user:7") == ["4", "5"]
    assert texts(broker, "other") == ["2", "3", "4", "5"]


def test_what_is_gone_is_said_for_each_policy(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=4, channels=RULES)
    cursors = [publish(broker, str(number), "user:7", "other").id for number in range(6)]
    for after in cursors:
        for channel, kept in (("user:7", cursors[-2:]), ("other", cursors[-4:])):
            found = history_of(broker, after, channel)
            assert (found.start <= after) is (after >= cursors[cursors.index(kept[0]) - 1])
            assert ids(found.entries) == [id for id in kept if id > max(after, found.start)]


def kept_of(bodies: list[str], size: int, most: int) -> list[str]:
    """The newest bodies that a policy keeps: at least one, at most `size`, with at most `most` bytes."""
    kept = bodies[-size:]
    while most and len(kept) > 1 and sum(len(f"data: {body}\n\n") for body in kept) > most:
        del kept[0]
    return kept


@pytest.mark.parametrize("most", [1, 9, 30, 200])
def test_the_kept_events_have_at_most_so_many_bytes(make_broker: MakeBroker, most: int) -> None:
    broker = make_broker(history_size=7, channels=(ChannelRule("a", bytes=most),))
    chance, bodies = random.Random(most), []
    for number in range(60):
        bodies.append(str(number) * chance.choice([1, 1, 3, 20]))
        publish(broker, bodies[-1], "a")
        assert texts(broker, "a") == kept_of(bodies, 7, most)


def test_a_batch_keeps_the_bytes_of_its_last_events(make_broker: MakeBroker) -> None:
    broker = make_broker(channels=RULES)
    bodies = [f"{number:04}" for number in range(20)]
    broker.publish([Publication(f"data: {body}\n\n".encode(), ("news",)) for body in bodies])
    assert texts(broker, "news") == kept_of(bodies, 1000, 60)


def test_an_entry_with_a_count_of_bytes_is_read_as_any_other(make_broker: MakeBroker) -> None:
    broker = make_broker(channels=(ChannelRule("a", bytes=500),))
    broker.publish(
        [Publication(b"data: 1\n\n", ("a", "b"), ("u7",), 60.0), Publication(b"data: 2\n\n", ("a",))]
    )
    shared, plain = history_of(broker, 0, "a").entries
    assert (shared.channels, set(shared.exclude), shared.shared) == (("a", "b"), {"u7"}, True)
    assert shared.expires > 0
    assert (plain.channels, plain.exclude, plain.expires) == (("a",), frozenset(), 0)


def test_a_channel_expires_after_its_own_time_and_no_other_with_it(make_broker: MakeBroker) -> None:
    broker = make_broker(channels=RULES)
    brief, other = publish(broker, "1", "brief:1").id, publish(broker, "1", "other").id
    eventually(lambda: not history_of(broker, 0, "brief:1").entries, 5)
    publish(broker, "2", "third")
    assert history_of(broker, brief - 1, "brief:1").start > brief - 1  # the event is gone
    assert history_of(broker, brief, "brief:1").start <= brief  # and no other was there
    assert history_of(broker, other - 1, "other").start <= other - 1
    again = publish(broker, "3", "brief:1").id
    assert ids(history_of(broker, brief, "brief:1").entries) == [again]
    assert history_of(broker, brief, "brief:1").start <= brief


def test_broadcasts_keep_what_the_other_settings_say(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=3, channels=(ChannelRule("*", history=1),))
    for number in range(5):
        broker.publish([Publication(b"data: %d\n\n" % number, ("*",))])
    assert texts(broker, "*") == ["2", "3", "4"]


# -- several publishers on one Redis ------------------------------------------------------------------------


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.close()


def test_publishers_with_any_policies_take_turns(store: Store) -> None:
    """Each publisher trims as its own policy says. The counts of bytes are right whoever trimmed before."""
    chance = random.Random(18)
    policies = [(8, 0), (8, 40), (3, 0), (3, 90), (20, 25), (20, 0)]
    brokers = {
        policy: store.another(channels=(ChannelRule("a", history=policy[0], bytes=policy[1]),))
        for policy in policies
    }
    kept: list[str] = []
    for number in range(250):
        size, most = policy = chance.choice(policies)
        text = str(number) * chance.choice([1, 1, 2, 9])
        brokers[policy].publish([Publication(f"data: {text}\n\n".encode(), ("a",))])
        kept = kept_of([*kept, text], size, most)
        if number % 3 == 0:
            assert [each.decode() for each in store.texts()] == kept
    for broker in brokers.values():
        broker.close()


def test_the_bytes_are_counted_anew_after_another_program_removed_events(store: Store) -> None:
    limited = store.another(channels=(ChannelRule("a", bytes=50),))
    for number in range(5):
        publish(limited, str(number), "a")
    store.client.ltrim(store.base + "list:a", 3, -1)
    for number in range(5, 8):
        publish(limited, str(number), "a")
    assert store.texts() == [b"3", b"4", b"5", b"6", b"7"]
    limited.close()


def test_a_smaller_limit_takes_effect_with_the_next_event(store: Store) -> None:
    for number in range(900):
        store.publish(f"{number:03}")
    smaller = store.another(channels=(ChannelRule("a", bytes=11 * 5),))
    publish(smaller, "900", "a")
    assert store.texts() == [b"896", b"897", b"898", b"899", b"900"]
    smaller.close()


def test_a_publisher_that_keeps_less_does_not_make_the_broker_forget_channels(store: Store) -> None:
    day = store.another(channels=(ChannelRule("user:*", ttl=86400.0),))
    cursor = publish(day, "1", "user:7")
    hasty = store.another(history_ttl=0.2)
    first = publish(hasty, "1", "b").id

    def went_on() -> bool:
        return publish(hasty, "2", "c").id > first + 1_000_000

    eventually(went_on, 5, every=0.1)
    assert "user:7" in store.client.zrange(store.base + "heads", 0, -1)
    assert store.claims(cursor, "user:7")
    publish(day, "2", "user:7")
    assert store.texts("user:7") == [b"1", b"2"]
    for broker in (day, hasty):
        broker.close()


@pytest.mark.parametrize(
    "longest", ["100000000 1", "x", "", "9e99 9e99", "-5 5", "100000000", "9" * 400 + " 5", "5 5 5"]
)
def test_an_old_or_damaged_note_of_the_longest_time_is_replaced(store: Store, longest: str) -> None:
    store.publish("1")
    store.client.hset(store.base + "state", "longest", longest)
    store.publish("2")
    milliseconds, until = store.client.hget(store.base + "state", "longest").split()
    assert milliseconds == "3600000"
    assert int(until) > 3600 * 1_000_000
    assert store.texts() == [b"1", b"2"]


def test_the_note_of_the_longest_time_is_not_written_with_each_event(store: Store) -> None:
    store.publish("1")
    noted = store.client.hget(store.base + "state", "longest")
    store.publish("2")
    assert store.client.hget(store.base + "state", "longest") == noted


# -- publishers whose policies differ are found -------------------------------------------------------------

Warned = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def forget_differences() -> Iterator[None]:
    """Forgets at the end what this process saw, so that no other test warns of it."""
    yield
    declared._seen.clear()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the monotonic clock go on by some seconds."""

    def go_on(seconds: float) -> None:
        now = time.monotonic() + seconds
        monkeypatch.setattr(time, "monotonic", lambda: now)

    return go_on


Start = Callable[[float], None]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes the next brokers those of a process that started so many seconds from now."""
    began = time.time()
    return lambda seconds: monkeypatch.setattr(forks, "started_at", lambda: began + seconds)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Warned:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name == declared.__name__]


DAY = {"channels": (ChannelRule("user:*", history=50, ttl=86400.0),)}
HOUR = {"channels": (ChannelRule("user:*", history=10),)}


@pytest.mark.parametrize("ends", [True, False])
def test_a_publisher_with_other_policies_warns_once_and_names_both(
    store: Store, warned: Warned, later: Callable[[float], None], ends: bool
) -> None:
    app, other = store.another(**DAY), store.another(**HOUR)
    app.declare()
    for broker in (app, other, app, other, other):
        publish(broker, "1", "user:7")
    assert warned() == []  # the app may get the same policies in a moment
    if ends:
        declared._warn_at_exit()
    else:
        later(declared.GRACE)
        publish(other, "1", "user:7")
    publish(other, "1", "user:7")
    (message,) = warned()
    digests = [each._policies.history_digest for each in (app, other)]  # type: ignore[attr-defined]
    assert all(digest in message for digest in digests)
    assert "user:*: 10 events, 3600.0 s here, 50 events, 86400.0 s there" in message
    assert "give all processes of the app the same SSE_PUSH_CHANNELS" in message
    for broker in (app, other):
        broker.close()


def test_many_announcers_of_one_process_warn_once(
    store: Store, warned: Warned, later: Callable[[float], None]
) -> None:
    app = store.another(**DAY)
    app.declare()
    publish(app, "0", "user:7")
    for number in range(4):  # a task that makes an announcer each time
        other = store.another(**HOUR)
        publish(other, "1", "user:7")
        other.close()
        later(declared.GRACE * (number > 0))
    assert len(warned()) == 1
    app.close()


def test_the_first_publisher_counts_until_a_worker_declares_its_policies(
    store: Store, warned: Warned
) -> None:
    early, worker = store.another(**HOUR), store.another(**DAY)
    publish(early, "1", "a")
    assert store.client.hget(store.base + "state", "rules").endswith(
        ' 0 [["user:*",10,3600.0,0],["",1000,3600.0,0]]'
    )
    worker.expect_to_declare()
    publish(worker, "2", "a")  # its first publish declares
    assert policies_of(store) == worker._policies.history_digest  # type: ignore[attr-defined]
    publish(worker, "3", "a")
    declared._warn_at_exit()
    assert warned() == []
    for broker in (early, worker):
        broker.close()


def policies_of(store: Store) -> Any:
    return store.client.hget(store.base + "state", "policies")


def worker_of(store: Store, policies: dict[str, Any]) -> Any:
    worker = store.another(**policies)
    worker.expect_to_declare()
    return worker


@pytest.mark.parametrize("by", ["publish", "stream"])
def test_a_rolling_deployment_with_other_policies_is_no_warning(
    store: Store, warned: Warned, later: Callable[[float], None], start: Start, by: str
) -> None:
    """Each worker begins with a publish or with a stream. An old worker that did nothing yet begins late."""

    def begin(worker: Any) -> None:
        if by == "stream":
            worker.declare()
        publish(worker, "1", "user:7")

    start(-1000)
    old, old_script = [worker_of(store, HOUR) for _ in range(3)], store.another(**HOUR)
    begin(old[0])
    publish(old_script, "1", "user:7")
    start(-1)
    new_script = store.another(**DAY)  # it is restarted before the app
    publish(new_script, "2", "user:7")
    start(0)
    new = [worker_of(store, DAY) for _ in range(2)]
    begin(new[0])
    begin(old[1])
    assert policies_of(store) == new[0]._policies.history_digest
    publish(old_script, "2", "user:7")
    start(1)
    again = worker_of(store, HOUR)  # gunicorn starts an old worker anew, until it is told of the new app
    begin(again)
    begin(new[1])
    later(declared.LOOK_EVERY)
    start(2)
    new.append(worker_of(store, DAY))
    begin(new[2])
    later(declared.GRACE)
    for broker in (*new, new_script):
        publish(broker, "3", "user:7")
    declared._warn_at_exit()  # in each of the processes
    assert warned() == []
    publish(old[0], "3", "user:7")  # a worker that was forgotten
    later(declared.GRACE)
    publish(old[0], "3", "user:7")
    assert len(warned()) == 1
    for broker in (*old, *new, again, old_script, new_script):
        broker.close()


def test_the_doctor_finds_a_process_that_keeps_less_than_the_app(
    store: Store, later: Callable[[float], None]
) -> None:
    settings = Settings(channels=DAY["channels"], prefix=store.prefix)
    app, other = worker_of(store, DAY), store.another(**HOUR)

    def found() -> str:
        [finding] = examine_policies([app], surroundings(app, store.prefix).kept, settings)
        return f"{finding.level} {finding.what}"

    publish(app, "1", "user:7")
    assert found().startswith("ok the broker has the channel policies of this app")
    publish(other, "1", "user:7")
    assert re.match(
        rf"warning process {os.getpid()}@\S+ published [0-9] seconds ago with the channel policies "
        rf"{other._policies.history_digest} \(user:\*: 50 events, 86400.0 s here, 10 events, 3600.0 s there",  # type: ignore[attr-defined]
        found(),
    )
    app.declare()  # a worker begins anew
    publish(app, "2", "user:7")  # keeps the events longer again
    assert found().startswith("ok")
    later(declared.LOOK_EVERY)
    publish(other, "3", "user:7")
    assert found().startswith("warning process")
    publish(app, "4", "user:7")
    at, rest = store.client.hget(store.base + "state", "other").split(" ", 1)
    for when in (str(int(at) - 3600), "x", "9" * 400, "-5", ""):
        store.client.hset(store.base + "state", "other", f"{when} {rest}")
        assert found().startswith("ok")
    for noted in ("x", at, f"{at} a", f"{at} a b", f"{at} a {'b' * 1000} 5 []"):
        store.client.hset(store.base + "state", "other", noted)
        assert found().startswith("ok") or "the broker does not say what differs" in found()
    for broker in (app, other):
        broker.close()


@pytest.mark.parametrize("time", ["9" * 15, "9" * 400, "-1", "x"])
def test_a_wrong_time_of_start_does_not_keep_a_worker_from_declaring(store: Store, time: str) -> None:
    worker = worker_of(store, DAY)
    store.publish("1")
    store.client.hset(store.base + "state", mapping={"policies": "abc", "rules": f"abc {time} []"})
    publish(worker, "2", "user:7")
    assert policies_of(store) == worker._policies.history_digest
    worker.close()


def test_a_publisher_to_several_shards_warns_once(store: Store, warned: Warned) -> None:
    def sharded(policies: ChannelPolicies) -> ShardedBroker:
        shared = DeclaredPolicies(policies)
        clients = [Clients(lambda: redis.ConnectionPool.from_url(store.url)) for _ in range(4)]
        numbers = [ShardNumber(number, 4) for number in range(4)]
        brokers = zip(clients, numbers, strict=True)
        return ShardedBroker(
            [RedisBroker(of, policies, store.prefix, 5.0, shard=at, declared=shared) for of, at in brokers]
        )

    app, other = sharded(keeping(100, 60.0)), sharded(keeping(100, 60.0, user={"history": 5}))
    for broker in (app, other, app, other):
        for number in range(20):
            publish(broker, "1", f"channel:{number}")
    declared._warn_at_exit()
    assert len(warned()) == 1
    for broker in (app, other):
        broker.close()


def test_an_event_that_was_stored_before_compares_nothing(store: Store, warned: Warned) -> None:
    app, other = store.another(**DAY), store.another(**HOUR)
    app.declare()
    publish(app, "1", "a")
    event = Publication(b"data: 2\n\n", ("a",))
    app.publish([event], "once")
    other.publish([event], "once")  # as after a lost reply
    declared._warn_at_exit()
    assert warned() == []
    publish(other, "3", "a")
    declared._warn_at_exit()
    assert len(warned()) == 1
    for broker in (app, other):
        broker.close()


def test_policies_that_keep_the_same_are_no_difference(store: Store, warned: Warned) -> None:
    app = store.another(
        channels=(ChannelRule("user:*", history=50), ChannelRule("ticks:*", public=True, batch_ms=100))
    )
    publisher = store.another(channels=(ChannelRule("user:*", history=50),))
    for broker in (app, publisher):
        publish(broker, "1", "a")
        broker.close()
    assert warned() == []


@pytest.mark.parametrize("rules", [None, "", "rubbish", "[[]]", "[5]", '[["a",1,2]]', "[" * 100_000, "{}"])
@pytest.mark.parametrize("digest", ["", "x" * 1000, "\x00\n", "abc"])
def test_foreign_data_in_place_of_the_policies_breaks_nothing(
    store: Store, warned: Warned, digest: str, rules: Any
) -> None:
    store.publish("1")
    store.client.hset(store.base + "state", "policies", digest)
    store.client.hdel(store.base + "state", "rules")
    if rules is not None:
        store.client.hset(store.base + "state", "rules", f"{digest} {rules}")
    other = store.another(**HOUR)
    publish(other, "2", "a")
    other.close()
    declared._warn_at_exit()
    assert store.texts() == [b"1", b"2"]
    if digest != "abc":
        assert warned() == []
        assert store.client.hget(store.base + "state", "policies") == other._policies.history_digest  # type: ignore[attr-defined]
        return
    (message,) = warned()
    assert "the broker does not say what differs" in message
    assert len(message) < 500


def test_a_worker_declares_its_policies_again_after_the_broker_lost_them(store: Store) -> None:
    app = store.another(**DAY)
    app.declare()
    store.client.delete(store.base + "state")
    publish(app, "1", "a")
    assert store.client.hget(store.base + "state", "rules").startswith(app._policies.history_digest)  # type: ignore[attr-defined]
    app.close()
