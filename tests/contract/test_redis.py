"""What holds for Redis and Valkey when data, network or clock fail."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from flask_sse_push import BrokerUnavailable, ConfigError, MessageAnnouncer
from flask_sse_push.brokers.base import (
    ENTRY_COST,
    Broker,
    ChannelHistory,
    Echo,
    History,
    Link,
    LinkMessage,
    LiveEvent,
    Subscribed,
)
from flask_sse_push.brokers.redis import broker as redis_broker
from flask_sse_push.brokers.redis.broker import RedisBroker, ShardNumber
from flask_sse_push.brokers.redis.client import LAST_START, Clients
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.history.link import LinkReader
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import MAX_ID, Cursor
from flask_sse_push.protocol.entry import Entry, Publication
from tests.support.deadline import eventually, stretched
from tests.support.policies import keeping
from tests.support.processes import free_port, need, redis_server, state_of
from tests.support.proxy import Proxy

TIMEOUT = 0.8
#: Seconds by which a machine may be late; another try with the same timeout would take longer.
LATE = 0.5


class Store:
    """A broker on Redis, and a client that uses the server directly."""

    def __init__(self, url: str, **settings: object) -> None:
        self.url = url
        self.prefix = f"test-{uuid.uuid4().hex}"
        self.base = "{" + self.prefix + ":0}:"
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.broker = self.another(**settings)

    def another(self, **settings: object) -> Broker:
        """A broker on the same data, as another process has it."""
        return connect_broker(Settings(broker_url=self.url, prefix=self.prefix, **settings))  # type: ignore[arg-type]

    def publish(self, text: str, *channels: str) -> Cursor:
        body = b"data: %b\n\n" % text.encode()
        return self.broker.publish([Publication(body, channels or ("a",))])[0]

    def insist(self, text: str, once: str, *channels: str) -> list[Cursor]:
        """Publishes until the broker has taken it."""
        publication = Publication(b"data: %b\n\n" % text.encode(), channels)
        taken: list[Cursor] = []

        def tried() -> bool:
            with contextlib.suppress(BrokerUnavailable):
                taken.extend(self.broker.publish([publication], once))
            return bool(taken)

        eventually(tried)
        return taken

    def past(self, after: int = 0, channel: str = "a") -> tuple[str, ChannelHistory]:
        def asked() -> History | None:
            with contextlib.suppress(BrokerUnavailable):  # one of those that give up soon
                return self.broker.history({channel: after}, "nobody")
            return None

        history = eventually(asked)
        assert history is not None
        return history.epoch, history.channels[channel]

    def claims(self, cursor: Cursor, channel: str = "a") -> bool:
        """Whether the broker says that it still has everything after the cursor."""
        epoch, past = self.past(cursor.id, channel)
        assert all(entry.epoch == epoch for entry in past.entries), "entries of another epoch"
        assert all(entry.id > past.start for entry in past.entries)
        return epoch == cursor.epoch and past.start <= cursor.id

    def ids(self, channel: str = "a") -> list[int]:
        return [entry.id for entry in self.past(0, channel)[1].entries]

    def texts(self, channel: str = "a") -> list[bytes]:
        return [entry.frame.split(b"data: ")[1].strip() for entry in self.past(0, channel)[1].entries]

    def names(self) -> list[str]:
        """The keys of this prefix, without their common beginning."""
        return sorted(key.removeprefix(self.base) for key in self.client.keys("*") if self.prefix in key)

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.close()


def receive(link: Link, count: int) -> list[LinkMessage]:
    signals: list[LinkMessage] = []

    def enough() -> bool:
        signals.extend(link.read(0.1))
        return len(signals) >= count

    eventually(enough, 5, every=0)
    return signals


# -- names ---------------------------------------------------------------------------------------------------


def test_all_keys_and_pubsub_names_share_one_hash_tag_and_the_prefix(store: Store) -> None:
    with contextlib.closing(store.broker.link("ear")) as link, store.client.pubsub() as spy:
        spy.psubscribe("*")
        assert eventually(lambda: spy.get_message(timeout=0.1))["type"] == "psubscribe"
        link.subscribe(["a", BROADCAST])
        assert receive(link, 2) == [Subscribed("a"), Subscribed(BROADCAST)]
        subscribed = [name for name in store.client.pubsub_channels() if store.prefix in name]
        store.broker.publish([Publication(b"x", ("a", "b"))], "an-id")
        store.publish("x", BROADCAST)
        store.broker.history({"a": 0}, "ear")
        store.broker.wake("ear")
        assert subscribed
        assert all(name.startswith(store.base) for name in subscribed)
        keys = [key for key in store.client.keys("*") if store.prefix in key]
        assert all(key.startswith(store.base) for key in keys)
        once = [key for key in store.names() if key.startswith("once:")]
        assert "once:an-id" in once
        assert store.names() == sorted([*once, "heads", "state", "list:a", "list:b", f"list:{BROADCAST}"])
        announced: list[str] = []

        def all_heard() -> bool:
            message = spy.get_message(ignore_subscribe_messages=True, timeout=0.1)
            if message is not None and store.prefix in message["channel"]:
                announced.append(message["channel"])
            return len(announced) == 5

        eventually(all_heard, 5, every=0)
        assert all(name.startswith(store.base) for name in announced)


def test_two_prefixes_are_independent(redis_url: str) -> None:
    with contextlib.closing(Store(redis_url)) as one, contextlib.closing(Store(redis_url)) as other:
        one.publish("x")
        assert other.past()[1] == ChannelHistory(0, [], 0)


def test_keys_expire_with_their_history(redis_url: str) -> None:
    with contextlib.closing(Store(redis_url, history_ttl=100.0)) as store:
        store.broker.publish([Publication(b"x", ("a",))], "an-id")
        store.publish("y", "b")
        for name in ("list:a", "list:b", "once:an-id"):
            assert 10_000 < store.client.pttl(store.base + name) <= 100_000
        unnamed = [key for key in store.names() if key.startswith("once:~")]
        assert unnamed
        assert all(0 < store.client.pttl(store.base + name) <= 10_000 for name in unnamed)


def test_heads_of_quiet_channels_are_pruned(redis_url: str) -> None:
    with contextlib.closing(Store(redis_url, history_ttl=0.5)) as store:
        store.broker.publish([Publication(b"data: x\n\n", (f"user:{n}",)) for n in range(50)])
        assert store.client.zcard(store.base + "heads") == 51  # and the mark that there is a record

        def pruned() -> bool:
            store.publish("x", "busy")
            return int(store.client.zcard(store.base + "heads")) == 2

        eventually(pruned, 5, every=0.1)
        assert [key for key in store.names() if key.startswith("list:")] == ["list:busy"]


def test_a_history_call_reads_the_missed_entries_only(store: Store) -> None:
    body = Publication(b"data: x\n\n", ("a",))
    for _ in range(10):
        store.broker.publish([body] * 100)
    newest = store.publish("x").id

    def entries_read(after: int) -> int:
        before = store.client.info("commandstats").get("cmdstat_lrange", {"calls": 0})["calls"]
        store.past(after)
        return int(store.client.info("commandstats").get("cmdstat_lrange", {"calls": 0})["calls"]) - int(
            before
        )

    assert entries_read(newest) == 0
    ids = store.ids()
    assert entries_read(ids[-10]) == 1
    assert entries_read(ids[-100]) <= 4
    assert entries_read(0) <= 8


# -- data loss -----------------------------------------------------------------------------------------------

Harm = Callable[[Store], object]

#: Each takes events of channel a away, or the record of them.
LOSSES: dict[str, Harm] = {
    "everything flushed": lambda store: [store.client.delete(store.base + key) for key in store.names()],
    "state deleted": lambda store: store.client.delete(store.base + "state"),
    "heads deleted": lambda store: store.client.delete(store.base + "heads"),
    "list deleted": lambda store: store.client.delete(store.base + "list:a"),
    "newest taken": lambda store: store.client.rpop(store.base + "list:a"),
    "all but oldest taken": lambda store: store.client.ltrim(store.base + "list:a", 0, 0),
    "epoch deleted": lambda store: store.client.hdel(store.base + "state", "epoch"),
    "last deleted": lambda store: store.client.hdel(store.base + "state", "last"),
    "state of rubbish": lambda store: store.client.hset(store.base + "state", "last", "rubbish"),
}


def test_a_search_in_many_channels_looks_at_few_entries_in_each_call(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker, "LOOK_ROOM", 10 * ENTRY_COST)
    names = [f"c{n}" for n in range(50)]
    published = [store.publish("x", name).id for name in names * 2]
    found, before, sizes = list[int](), MAX_ID, list[int]()
    while before:
        newest = store.broker.newest(names, 100, before)
        found, before = found + newest.ids, newest.before
        sizes.append(len(newest.ids))
    assert found == published[::-1]
    assert sizes[0] <= 10


@pytest.mark.parametrize("read", ["page", "newest"])
def test_many_entries_are_read_with_few_commands(store: Store, read: str) -> None:
    """A command for each entry kept the server busy for 25 ms in a list of 100,000 entries."""
    names, channels = "abc", 3
    for n in range(120):
        store.publish("x", names[n % channels])
    store.client.config_resetstat()
    if read == "page":
        store.broker.page(dict.fromkeys(names, 0), "nobody", 10**6)
    else:
        store.broker.newest(names, 120)
    stats = store.client.info("commandstats")
    calls = {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lindex", "lrange")}
    assert 0 < calls["lrange"] <= 10 * channels
    assert calls["lindex"] <= 10 * channels


@pytest.mark.parametrize("then", ["at once", "after a publish", "after others published"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_never_called_complete(store: Store, loss: str, then: str) -> None:
    published = [store.publish(str(n)) for n in range(6)]
    position = store.broker.probe("ear")
    assert store.claims(published[2])
    LOSSES[loss](store)
    if then == "after a publish":
        store.publish("new")
    elif then == "after others published":
        store.publish("new", "b")
    for cursor in published[:-1]:
        assert not store.claims(cursor)
    assert store.broker.probe("ear") > position or store.broker.probe("ear").epoch != position.epoch


def test_an_id_is_forgotten_with_the_events(store: Store) -> None:
    publication = [Publication(b"data: x\n\n", ("a",))]
    first = store.broker.publish(publication, "an-id")
    assert store.broker.publish(publication, "an-id") == first
    LOSSES["everything flushed"](store)
    again = store.broker.publish(publication, "an-id")
    assert again[0].epoch != first[0].epoch
    assert store.ids() == [again[0].id]


def test_a_list_trimmed_from_outside_still_serves_what_is_left(store: Store) -> None:
    published = [store.publish(str(n)) for n in range(6)]
    store.client.ltrim(store.base + "list:a", 3, -1)
    assert not store.claims(published[1])
    assert store.claims(published[2])
    assert store.ids() == [cursor.id for cursor in published[3:]]


def test_the_next_event_shows_a_flush(store: Store) -> None:
    with contextlib.closing(store.broker.link("ear")) as link:
        link.subscribe(["a"])
        receive(link, 1)
        old = store.publish("old")
        LOSSES["everything flushed"](store)
        new = store.publish("new")
        assert new.epoch != old.epoch
        epochs = [
            Entry.parse(signal.stored).epoch for signal in receive(link, 2) if isinstance(signal, LiveEvent)
        ]
        assert epochs == [old.epoch, new.epoch]
        snapshot = store.broker.probe("ear")
        assert receive(link, 1) == [Echo(new.epoch, snapshot.id)]


def test_a_new_epoch_serves_no_entry_of_the_old_one(store: Store) -> None:
    for n in range(5):
        store.publish(f"old {n}", "a", "b")
    store.client.delete(store.base + "state")
    new = store.publish("new", "a")
    assert store.texts("a") == [b"new"]
    assert store.texts("b") == []
    assert store.past(0, "a")[1].head == new.id
    store.publish("newer", "b")
    assert store.texts("b") == [b"newer"]


def test_every_loss_makes_another_epoch(store: Store) -> None:
    epochs = set()
    for _ in range(20):
        epochs.add(store.publish("x").epoch)
        store.client.delete(store.base + "state")
    assert len(epochs) == 20


@pytest.mark.parametrize(
    "last", ["", "-5", "1.5", "1e300", "inf", "nan", "0x10", str(2**53), "9" * 30, "rubbish"]
)
def test_rubbish_in_the_state_breaks_nothing(store: Store, last: str) -> None:
    old = [store.publish(str(n)) for n in range(3)]
    store.client.hset(store.base + "state", "last", last)
    new = [store.publish(str(n)) for n in range(3)]
    assert len({cursor.id for cursor in new}) == 3
    assert all(0 < cursor.id <= MAX_ID for cursor in new)
    assert [entry.id for entry in store.past(new[0].id)[1].entries] == [cursor.id for cursor in new[1:]]
    assert not store.claims(old[0]) or set(store.ids()) >= {cursor.id for cursor in (*old[1:], *new)}


@pytest.mark.parametrize("epoch", ["", "two words", "x" * 1000, "é"])
def test_a_rubbish_epoch_breaks_nothing(store: Store, epoch: str) -> None:
    store.publish("old")
    store.client.hset(store.base + "state", "epoch", epoch)
    new = store.publish("new")
    assert new.epoch.isascii()
    assert new.epoch.isalnum()
    assert store.texts() == [b"new"]


@pytest.mark.parametrize("junk", ["junk", "ab x 0 -\nbody", "\0\xff"])
@pytest.mark.parametrize("end", ["rpush", "lpush"])
def test_foreign_items_in_a_list_are_not_taken_for_events(store: Store, junk: str, end: str) -> None:
    published = [store.publish(str(n)) for n in range(3)]
    getattr(store.client, end)(store.base + "list:a", junk)
    assert set(store.ids()) <= {cursor.id for cursor in published}
    newer = store.publish("new")
    assert newer.id in store.ids()
    assert all(not store.claims(c) or newer.id in store.ids() for c in published)


# -- the clock -----------------------------------------------------------------------------------------------


def test_a_clock_that_went_back_does_not_take_the_ids_with_it(store: Store) -> None:
    before = [store.publish(str(n)) for n in range(3)]
    ahead = before[-1].id + 3600 * 1_000_000  # as if the clock had been an hour ahead until now
    store.client.hset(store.base + "state", "last", ahead)
    after = [store.publish(str(n)) for n in range(3)]
    assert [cursor.id for cursor in after] == [ahead + 1, ahead + 2, ahead + 3]
    assert store.ids() == [cursor.id for cursor in (*before, *after)]
    assert all(store.claims(cursor) for cursor in (*before, *after))
    assert store.broker.probe("ear").id > ahead + 3


def test_a_clock_that_went_forward_loses_nothing_silently(redis_url: str) -> None:
    with contextlib.closing(Store(redis_url, history_ttl=60.0)) as store:
        before = [store.publish(str(n)) for n in range(3)]
        store.client.hset(store.base + "state", "last", before[-1].id + 3600 * 1_000_000)
        after = [store.publish(str(n), "b") for n in range(3)]  # prunes the head of channel a
        assert after[0].id > before[-1].id + 3600 * 1_000_000
        for cursor in before[:-1]:
            assert not store.claims(cursor) or set(store.ids()) >= {c.id for c in before if c > cursor}
        assert all(store.claims(cursor, "b") for cursor in after)


def test_another_number_of_shards_begins_a_new_epoch(store: Store) -> None:
    """Otherwise a channel that lies on another shard now would seem to have had no events."""

    def epoch(shard: ShardNumber | None) -> str:
        clients = Clients(lambda: redis.ConnectionPool.from_url(store.url))
        broker = RedisBroker(clients, keeping(100, 60), store.prefix, TIMEOUT, shard=shard)
        found = [broker.publish([Publication(b"data: x\n\n", ("a",))])[0].epoch for _ in range(2)]
        broker.close()
        assert found[0] == found[1]
        return found[0]

    alone = store.publish("x").epoch
    of_eight, of_four = epoch(ShardNumber(0, 8)), epoch(ShardNumber(0, 4))
    assert (of_eight[:2], of_four[:2]) == ("08", "04")
    assert len(of_eight) == len(of_four) == 6
    assert len(store.publish("x").epoch) == len(alone) == 8
    assert store.publish("x").epoch != alone


def test_a_time_to_live_goes_by_the_clock_and_not_by_the_id(store: Store) -> None:
    ahead = store.publish("x").id + 3600 * 1_000_000
    store.client.hset(store.base + "state", "last", ahead)
    store.broker.publish([Publication(b"data: x\n\n", ("a",), ttl=5.0)])
    history = store.broker.history({"a": ahead}, "nobody")
    (entry,) = history.channels["a"].entries
    assert entry.id == ahead + 1
    assert 0 < entry.expires - history.clock <= 5_000_000


def test_the_clock_of_expiry_goes_on_when_the_clock_was_set_back(store: Store) -> None:
    """As if the clock had been an hour ahead until now."""
    before = store.broker.history({}, "nobody").clock
    noted = int(store.client.hget(store.base + "state", "time"))
    store.client.hset(store.base + "state", "time", noted + 3600 * 1_000_000)
    clocks = [store.broker.history({}, "nobody").clock for _ in range(3)]
    assert clocks == sorted(clocks)
    assert before + 3600 * 1_000_000 <= clocks[0] < before + 3660 * 1_000_000


@pytest.mark.parametrize("field", ["time", "behind"])
@pytest.mark.parametrize("value", ["", "-5", "inf", "rubbish", "9" * 15, "9" * 30])
def test_rubbish_in_the_clock_of_expiry_breaks_nothing(store: Store, field: str, value: str) -> None:
    store.broker.history({}, "nobody")
    store.client.hset(store.base + "state", field, value)
    store.broker.publish([Publication(b"data: x\n\n", ("a",), ttl=5.0)])
    history = store.broker.history({"a": 0}, "nobody")
    assert 0 < history.channels["a"].entries[0].expires - history.clock <= 5_000_000


def test_a_state_set_back_behind_its_events_ends_the_epoch(store: Store) -> None:
    before = [store.publish(str(n)) for n in range(3)]
    ahead = before[-1].id + 3600 * 1_000_000
    store.client.hset(store.base + "state", "last", ahead)
    given_out = store.publish("an hour ahead")
    store.client.hset(store.base + "state", "last", before[-1].id)  # ids would be given out again
    after = store.publish("now")
    assert after.epoch != given_out.epoch
    assert not store.claims(given_out)


# -- the network ---------------------------------------------------------------------------------------------


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


@pytest.fixture
def proxied(redis_url: str) -> Iterator[tuple[Proxy, Store]]:
    """A store whose broker reaches its Redis through a proxy."""
    with Proxy(port_of(redis_url)) as proxy, contextlib.closing(Store(redis_url)) as store:
        store.broker.close()
        url = f"redis://127.0.0.1:{proxy.port}/0"
        store.broker = connect_broker(Settings(broker_url=url, prefix=store.prefix, publish_timeout=30.0))
        yield proxy, store


@pytest.fixture
def hasty(proxied: tuple[Proxy, Store]) -> tuple[Proxy, Store]:
    """The same, and its broker gives up soon."""
    proxy, store = proxied
    store.broker.close()
    url = f"redis://127.0.0.1:{proxy.port}/0"
    store.broker = connect_broker(Settings(broker_url=url, prefix=store.prefix, publish_timeout=TIMEOUT))
    return proxy, store


def unavailable(publish: Callable[[], object], limit: float = TIMEOUT) -> BrokerUnavailable:
    """The error of a publish that must fail within its time."""
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        publish()
    assert time.monotonic() - start < 1.1 * limit + stretched(LATE)
    return caught.value


def test_a_lost_reply_does_not_store_twice(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    chosen = random.sample(range(200), 20)
    returned = [store.publish("first")]
    for n in range(200):
        if n in chosen:
            proxy.replies.drop_next()
        returned.append(store.publish(str(n)))
    assert proxy.replies.dropped == 20
    assert store.texts() == [b"first", *(str(n).encode() for n in range(200))]
    assert store.ids() == [cursor.id for cursor in returned]


def test_two_lost_replies_raise_and_still_do_not_store_twice(hasty: tuple[Proxy, Store]) -> None:
    proxy, store = hasty
    store.publish("before")
    proxy.replies.drop_next(20)  # the handshakes of new connections too
    unavailable(lambda: store.broker.publish([Publication(b"data: x\n\n", ("a", "b"))], "an-id"))
    proxy.replies.drop_no_more()
    again = store.insist("x", "an-id", "a", "b")
    assert store.ids("b") == [again[0].id]
    assert store.texts() == [b"before", b"x"]


def test_a_connection_that_died_unnoticed_costs_nothing(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    store.publish("before")
    for n in range(10):
        proxy.cut()
        store.publish(str(n))
    assert store.texts() == [b"before", *(b"%d" % n for n in range(10))]


def test_a_frozen_network_raises_in_time_and_works_again(hasty: tuple[Proxy, Store]) -> None:
    proxy, store = hasty
    store.insist("before", "first", "a", "b")
    proxy.requests.freeze()
    unavailable(lambda: store.publish("lost", "a", "b"))
    proxy.requests.thaw()
    eventually(lambda: b"lost" in store.texts())  # the bytes that were held back go to the server now
    store.insist("after", "last", "a", "b")
    assert store.ids("a") == store.ids("b")
    assert store.texts() == [b"before", b"lost", b"after"]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.24, 0.3, 0.5, 1.2])
def test_a_slow_network_raises_in_time(hasty: tuple[Proxy, Store], share: float) -> None:
    proxy, store = hasty
    proxy.replies.delay = share * TIMEOUT
    start = time.monotonic()
    with contextlib.suppress(BrokerUnavailable):
        store.publish("slow", "a", "b")
    assert time.monotonic() - start < 1.1 * TIMEOUT + stretched(LATE)
    proxy.replies.delay = 0
    store.insist("after", "last", "a", "b")
    assert store.ids("a") == store.ids("b")
    assert store.texts().count(b"slow") <= 1


def test_a_link_learns_that_its_connection_was_cut(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    with contextlib.closing(store.broker.link("ear")) as link:
        link.subscribe(["a"])
        assert receive(link, 1) == [Subscribed("a")]
        proxy.cut()

        def broken() -> bool:
            try:
                link.read(0.1)
            except BrokerUnavailable:
                return True
            return False

        assert eventually(broken, 5)
    with contextlib.closing(store.broker.link("ear")) as link:
        link.subscribe(["a"])
        assert receive(link, 1) == [Subscribed("a")]
        store.publish("x")
        assert {type(signal) for signal in receive(link, 1)} == {LiveEvent}


def test_a_link_that_was_closed_leaves_nothing_behind(store: Store) -> None:
    def connections() -> int:
        return sum(isinstance(each, AbstractConnection) for each in gc.get_objects())

    store.broker.link("ear").close()
    gc.collect()
    before = connections()
    for _ in range(20):
        store.broker.link("ear").close()
    gc.collect()
    assert connections() <= before


def test_a_broker_may_be_closed_while_a_link_reads(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[LinkMessage] = []
    reader = LinkReader(store.broker, "ear", lambda item: heard.extend(item[1] or ()), silence=60)
    reader.subscribe(["a"])
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        eventually(lambda: Subscribed("a") in heard)
        store.broker.close()
        store.client.publish(store.base + "live:a", "the link hears it")
        eventually(lambda: len(heard) == 2)
    finally:
        reader.close()
        thread.join(60)
    assert not thread.is_alive()
    assert caplog.messages == []


def published(announcer: MessageAnnouncer, text: str) -> bool:
    """Whether the event was published within the announcer's time."""
    with contextlib.suppress(BrokerUnavailable):
        announcer.publish(text, id=text)
        return True
    return False


def test_a_closed_port_raises_at_once_and_a_server_there_is_found_later(tmp_path: Path) -> None:
    port = free_port()
    announcer = MessageAnnouncer.from_url(f"redis://127.0.0.1:{port}/0", SSE_PUSH_PUBLISH_TIMEOUT=TIMEOUT)
    error = unavailable(lambda: announcer.publish("x"))
    assert "refused" in str(error)
    with redis_server(tmp_path, port=port):
        eventually(lambda: published(announcer, "y"))
    unavailable(lambda: announcer.publish("z"))
    announcer.close()


def test_a_stopped_server_raises_in_time_and_nothing_is_half_stored(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, contextlib.closing(Store(url, publish_timeout=TIMEOUT)) as store:
        store.insist("before", "first", "a", "b")
        pid = int(store.client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: state_of(pid) == "T")
            for _ in range(3):
                unavailable(lambda: store.publish("lost", "a", "b"))
            unavailable(lambda: store.broker.history({"a": 0}, "ear"))
            store.broker.wake("ear")
        finally:
            os.kill(pid, signal.SIGCONT)
        store.insist("after", "last", "a", "b")
        assert store.ids("a") == store.ids("b")
        assert store.texts().count(b"lost") <= 3
        assert (store.texts()[0], store.texts()[-1]) == (b"before", b"after")


@pytest.mark.parametrize("connection", ["pooled", "fresh"])
def test_a_frozen_server_gets_all_of_the_publish_timeout(tmp_path: Path, connection: str) -> None:
    timeout = 1.0
    with redis_server(tmp_path) as url, contextlib.closing(Store(url, publish_timeout=timeout)) as store:
        if connection == "pooled":
            store.insist("before", "first", "a")
        pid = int(store.client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: state_of(pid) == "T")
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="TimeoutError"):
                store.publish("lost", "a")
            assert LAST_START * timeout <= time.monotonic() - began <= stretched(2 * timeout)
            threading.Timer(0.75 * timeout, os.kill, (pid, signal.SIGCONT)).start()
            last = store.publish("late", "a")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert last.id == store.ids("a")[-1]
        assert store.texts("a").count(b"late") == 1


def test_a_full_server_stores_all_or_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, contextlib.closing(Store(url)) as store:
        store.publish("before", "a", "b")
        store.client.config_set("maxmemory", 1)
        error = unavailable(lambda: store.publish("x", "a", "b"), 2.0)
        assert "maxmemory" in str(error)
        store.client.config_set("maxmemory", 0)
        store.publish("after", "a", "b")
        assert store.texts("a") == store.texts("b") == [b"before", b"after"]


# -- URLs ----------------------------------------------------------------------------------------------------


def shown(error: BaseException) -> str:
    """All that a log shows of an error: its text and the texts of its causes."""
    texts = []
    found: BaseException | None = error
    while found is not None:
        texts += [str(found), repr(found)]
        found = found.__cause__ or found.__context__
    return "\n".join(texts)


def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--protected-mode", "no") as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", "right")
        port = port_of(url)
        good = MessageAnnouncer.from_url(f"redis://:right@127.0.0.1:{port}/0")
        good.publish("x")
        good.close()
        for credentials in (":hunter2@", "someone:hunter2@", ""):
            announcer = MessageAnnouncer.from_url(f"redis://{credentials}127.0.0.1:{port}/0")
            error = unavailable(lambda announcer=announcer: announcer.publish("x"), 2.0)  # type: ignore[misc]
            assert "hunter2" not in shown(error)
            assert any(word in str(error).lower() for word in ("auth", "password"))
            announcer.close()


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "hun#ter2", "hun%ter2"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:{}@localhost:notaport/0",
        "redis://me:{}@localhost:6379/notadatabase",
        "redis://me:{}@localhost:99999/0",
        "mysql://me:{}@localhost/0",
        "REDIS://me:{}@localhost/0",
        "redis:/me:{}@localhost/0",
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, password: str) -> None:
    with pytest.raises((ConfigError, BrokerUnavailable)) as caught:
        MessageAnnouncer.from_url(url.format(password)).publish("x")
    text = shown(caught.value)
    assert not any(part in text for part in (password, "hun", "ter2"))


@pytest.mark.parametrize("url", ["redis://localhost:notaport/0", "nonsense://x", "redis:x"])
def test_a_wrong_url_names_its_key_and_itself(url: str) -> None:
    with pytest.raises(ConfigError, match="SSE_PUSH_BROKER_URL") as caught:
        MessageAnnouncer.from_url(url)
    assert url in str(caught.value)


def test_unix_sockets_and_valkeys_own_scheme_work(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    with redis_server(tmp_path, "--unixsocket", str(socket)) as url:
        urls = [url, url.replace("redis://", "valkey://"), f"unix://{socket}", f"unix://{socket}?db=0"]
        for n, each in enumerate(urls):
            announcer = MessageAnnouncer.from_url(each)
            announcer.publish(n)
            announcer.close()
        with contextlib.closing(connect_broker(Settings(broker_url=f"unix://{socket}"))) as broker:
            assert len(broker.history({"sse": 0}, "ear").channels["sse"].entries) == 4
            with contextlib.closing(broker.link("ear")) as link:
                link.subscribe(["sse"])
                assert receive(link, 1) == [Subscribed("sse")]


def test_tls_works_and_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    command = [
        need("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with redis_server(tmp_path, *options, "--tls-auth-clients", "no"):
        for scheme in ("rediss", "valkeys"):
            url = f"{scheme}://127.0.0.1:{port}/0"
            announcer = MessageAnnouncer.from_url(f"{url}?ssl_ca_certs={certificate}")
            announcer.publish("x")
            announcer.close()
            stranger = MessageAnnouncer.from_url(url)
            error = unavailable(lambda stranger=stranger: stranger.publish("x"), 2.0)  # type: ignore[misc]
            assert "certificate" in str(error).lower()
            stranger.close()
