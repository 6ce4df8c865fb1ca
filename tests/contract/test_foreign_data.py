"""What holds if another program writes into the keys of Redis: the other channels notice nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_push import InvalidEvent
from flask_sse_push.auth.limits import Limits
from flask_sse_push.brokers.base import Echo, LiveEvent
from flask_sse_push.brokers.counts import CountKey
from flask_sse_push.config import Settings
from flask_sse_push.errors import Refused
from flask_sse_push.presence.worker_counts import WorkerCounts
from flask_sse_push.protocol.cursor import MAX_ID
from flask_sse_push.protocol.entry import Publication
from tests.support.deadline import eventually

from .test_redis import Store, receive

USER = CountKey("user", "7")
OTHER = CountKey("user", "8")

Harm = Callable[[Store, str], object]

#: Each replaces a key by one of another type. No key of ours has the type set.
WRONG_TYPES: dict[str, Harm] = {
    "a set": lambda store, key: store.client.sadd(key, "x"),
    "a text": lambda store, key: store.client.set(key, "x"),
    "a list": lambda store, key: store.client.rpush(key, "x"),
    "a hash": lambda store, key: store.client.hset(key, "x", "y"),
    "a sorted set": lambda store, key: store.client.zadd(key, {"x": 1}),
    "a stream": lambda store, key: store.client.xadd(key, {"x": "y"}),
}


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def replace(store: Store, name: str, kind: str) -> str:
    key = store.base + name
    store.client.delete(key)
    WRONG_TYPES[kind](store, key)
    return key


@pytest.mark.parametrize("first", ["read", "publish"])
@pytest.mark.parametrize("kind", [kind for kind in WRONG_TYPES if kind != "a list"])
def test_a_list_of_another_type_harms_its_channel_only(
    store: Store, kind: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_a, in_b = [store.publish("x", "a") for _ in range(3)], [store.publish("x", "b") for _ in range(3)]
    key = replace(store, "list:a", kind)
    if first == "read":
        for _ in range(3):
            history = store.broker.history({"a": in_a[0].id, "b": in_b[0].id}, "nobody")
            assert history.channels["a"].start == in_a[-1].id
            assert [entry.id for entry in history.channels["b"].entries] == [each.id for each in in_b[1:]]
        assert store.claims(in_a[-1])
    new = store.broker.publish([Publication(b"data: new\n\n", ("a", "b"))])[0]
    assert new.epoch == in_a[0].epoch
    assert store.ids("a") == [new.id]
    assert store.ids("b") == [*(each.id for each in in_b), new.id]
    assert not store.claims(in_a[1])
    assert store.claims(in_a[2])
    assert [key in text for text in errors(caplog)] == [True]


def _is_text(message: dict[str, Any] | None) -> bool:
    return message is not None and message["type"] == "message"


def test_only_events_of_the_script_are_proven(store: Store) -> None:
    with contextlib.closing(store.broker.link("w")) as link:
        link.subscribe(["a", "b"])
        receive(link, 2)
        store.publish("x", "a")
        raw = store.client.pubsub()
        raw.subscribe(store.base + "live:a")
        raw.get_message(timeout=5)
        last = store.publish("y", "a")
        found = eventually(lambda: [each for each in [raw.get_message(timeout=1)] if _is_text(each)])
        genuine = str(found[0]["data"]).encode()
        raw.close()
        entry = genuine.partition(b" ")[2]
        later = genuine.replace(b"%d" % last.id, b"%d" % (last.id + 50_000))
        other_epoch = genuine.replace(last.epoch.encode(), b"zz9")
        forgeries = [entry, b"", b"junk", b"0" * 40 + b" " + entry, later, other_epoch, genuine]
        for each in forgeries:
            store.client.publish(store.base + "live:a", each)
        store.client.publish(store.base + "live:b", genuine)
        heard = [signal for signal in receive(link, 3 + len(forgeries)) if isinstance(signal, LiveEvent)]
    assert [signal.proven for signal in heard] == [True, True, *[False] * 5, None, True, False]
    assert {signal.stored for signal in heard if signal.proven} >= {entry}


@pytest.mark.parametrize("value", ["", "abc", "0123456789abcdef" * 2, "{epoch} xyz", "{epoch} ", "x" * 10**6])
def test_a_damaged_secret_ends_the_epoch(store: Store, value: str) -> None:
    old = store.publish("old", "a")
    store.client.hset(store.base + "state", "secret", value.replace("{epoch}", old.epoch))
    with contextlib.closing(store.broker.link("w")) as link:
        link.subscribe(["a"])
        receive(link, 1)
        new = store.publish("new", "a")
        (heard,) = receive(link, 1)
    assert new.epoch != old.epoch
    assert isinstance(heard, LiveEvent)
    assert heard.proven


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("name", ["state", "heads"])
def test_a_state_or_heads_of_another_type_ends_the_epoch(
    store: Store, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.publish("old")
    key = replace(store, name, kind)
    new = store.publish("new")
    assert new.epoch != old.epoch
    assert store.texts() == [b"new"]
    assert not store.claims(old)
    assert (kind, name) in {("a hash", "state"), ("a sorted set", "heads")} or key in errors(caplog)[0]


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_an_idempotency_id_of_another_type_is_forgotten(store: Store, kind: str) -> None:
    publication = [Publication(b"data: x\n\n", ("a",))]
    first = store.broker.publish(publication, "an-id")
    replace(store, "once:an-id", kind)
    again = store.broker.publish(publication, "an-id")
    assert again > first
    assert store.broker.publish(publication, "an-id") == again


@pytest.mark.parametrize("field", ["epoch", "first", "count"])
@pytest.mark.parametrize("value", ["", "-5", "1.5", "inf", "two words", "9" * 30, "\0"])
def test_a_damaged_idempotency_id_invents_no_cursor(store: Store, field: str, value: str) -> None:
    publication = [Publication(b"data: x\n\n", ("a",))]
    store.broker.publish(publication, "an-id")
    store.client.hset(store.base + "once:an-id", field, value)
    again = store.broker.publish(publication, "an-id")
    assert again[0].id in store.ids()


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_a_claim_of_another_type_is_not_got(store: Store, kind: str) -> None:
    replace(store, "claim:ticket", kind)
    assert store.broker.claim("ticket", 60) is False
    assert store.broker.claim("other", 60) is True


SCORES = [-5.0, 0.0, 1.5, float(MAX_ID), 9e18, 1e300, float("inf"), float("-inf")]


@pytest.mark.parametrize("first", ["read", "publish"])
@pytest.mark.parametrize("score", SCORES)
def test_a_score_that_is_no_position_harms_its_channel_only(
    store: Store, score: float, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_a, in_b = [store.publish("x", "a") for _ in range(3)], [store.publish("x", "b") for _ in range(3)]
    store.client.zadd(store.base + "heads", {"a": score})
    if first == "publish":
        store.publish("x", "c")
    complete = store.ids("a") == [each.id for each in in_a]
    assert complete or not store.claims(in_a[1]), "nobody knows which events the channel had"
    assert store.claims(in_b[1], "b")
    new = store.publish("new", "a")
    assert new.epoch == in_a[0].epoch
    position = store.broker.probe("nobody")
    newer = store.publish("newer", "a")
    assert store.claims(position), "the next event mends the record"
    assert store.ids("a")[-2:] == [new.id, newer.id]
    assert len(errors(caplog)) == 1
    assert store.base + "heads" in errors(caplog)[0]


def test_foreign_names_among_the_channels_are_not_listed(store: Store) -> None:
    new = store.publish("x", "a")
    store.client.zadd(store.base + "heads", {b"\xff": 5, "a b": 5, "b": float("-inf"), "\0": 7, "é": 9})
    assert store.broker.heads(10) == {"a": new.id}


ITEMS = [
    b"",
    b"junk",
    b"\xff\xfe",
    b"EPOCH -5 0 -\ndata: x\n\n",
    b"EPOCH 1_0 0 -\ndata: x\n\n",
    b"EPOCH " + b"9" * 30 + b" 0 -\ndata: x\n\n",
    b"EPOCH 99999999999999999 0 -\ndata: x\n\n",
    b"EPOCH 9007199254740991 5 -\ndata: x\n\n",
    b"EPOCH 8 9 -\ndata: x\n\n",
    b"EPOCH 8 0 t=abc\ndata: x\n\n",
    b"EPOCH 8 0 m=other\ndata: x\n\n",
    b"EPOCH 8 0 &&\ndata: x\n\n",
    b"a\rb 8 0 -\ndata: x\n\n",
]


@pytest.mark.parametrize("end", ["rpush", "lpush"])
@pytest.mark.parametrize("item", ITEMS)
def test_an_item_that_is_no_entry_harms_its_channel_only(
    store: Store, item: bytes, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_a, in_b = [store.publish("x", "a") for _ in range(3)], [store.publish("x", "b") for _ in range(3)]
    getattr(store.client, end)(store.base + "list:a", item.replace(b"EPOCH", in_a[0].epoch.encode()))
    new = store.broker.publish([Publication(b"data: x\n\n", ("a", "b"))])[0]
    for _ in range(2):
        history = store.broker.history({"a": 0, "b": in_b[0].id}, "nobody")
        assert history.channels["a"].start > 0, "an event may be missing, and the answer must say so"
        assert {entry.id for entry in history.channels["a"].entries} <= {each.id for each in (*in_a, new)}
        assert new.id in {entry.id for entry in history.channels["a"].entries}
        assert [entry.id for entry in history.channels["b"].entries] == [in_b[1].id, in_b[2].id, new.id]
    assert store.claims(new)
    assert [store.base + "list:a" in text for text in errors(caplog)] == [True]


def test_a_message_in_an_inbox_that_is_no_echo_is_ignored(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(store.broker.link("ear")) as link:
        link.subscribe(["a"])
        receive(link, 1)
        for junk in (b"\xff", b"a b c", b"x -5", b"X 5", b"x 1_0", b"x " + b"9" * 30, b"", b" "):
            store.client.publish(store.base + "inbox:ear", junk)
        position, event = store.broker.probe("ear"), store.publish("x")
        messages = receive(link, 2)
        assert messages[0] == Echo(position.epoch, position.id)
        assert isinstance(messages[1], LiveEvent)
        assert str(event.id).encode() in messages[1].stored
    assert [store.base + "inbox:ear" in text for text in errors(caplog)] == [True]


# -- counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("name", ["workers", "held:w1", "count:user"])
def test_counts_of_another_type_do_not_stop_the_reports(store: Store, name: str, kind: str) -> None:
    counts = store.broker.counts
    assert counts.report("w1", 1, {USER: 2}, 60).known
    assert counts.report("w2", 1, {USER: 1, CountKey("room", "r"): 3}, 60).known
    replace(store, name, kind)
    assert counts.totals([CountKey("room", "r")]) == [3]
    assert counts.totals([USER])[0] in (0, 3)
    assert counts.size("user") in (0, 1)
    assert len(counts.names("user", 10)) <= 1
    assert set(counts.workers()) <= {"w1", "w2"}
    reply = counts.report("w1", 2, {USER: 3, OTHER: 1}, 60)
    assert reply.known or name == "held:w1"
    if not reply.known:
        assert counts.report("w3", 1, {USER: 3, OTHER: 1}, 60).known
    assert counts.totals([OTHER, CountKey("room", "r")]) == [1, 3]
    # A hash without the total looks as if it had expired: only what w1 has added since is known.
    assert counts.totals([USER])[0] >= (1 if kind == "a hash" else 3)
    assert counts.report("w2", 2, {CountKey("room", "r"): 4}, 60).known
    assert {"w2"} <= set(counts.workers())
    counts.retire("w1")
    store.broker.counts.reap("w1")


@pytest.mark.parametrize("total", ["", "x", "1.5", "-5", "9" * 30, "\0", "1e5"])
def test_a_damaged_total_harms_its_name_only(store: Store, total: str) -> None:
    counts = store.broker.counts
    counts.report("w1", 1, {USER: 2, OTHER: 1}, 60)
    store.client.hset(store.base + "count:user", USER.name, total)
    assert counts.totals([USER, OTHER]) == [0, 1]
    reply = counts.report("w1", 2, {USER: 4, OTHER: 2}, 60)
    assert reply.known
    assert counts.totals([OTHER]) == [2]
    assert counts.report("w1", 3, {USER: 0}, 60).known
    assert counts.totals([USER]) == [0]


@pytest.mark.parametrize("field", ["", "=", "user\n7", "no count", "\udcff", "\n"])
@pytest.mark.parametrize("value", ["", "x", "-9", "[1]", '["a","b"]', "[" * 1000, "9" * 30, "\0"])
def test_damaged_counts_of_a_worker_are_reported_again_or_reaped(
    store: Store, field: str, value: str
) -> None:
    counts = store.broker.counts
    report = counts.report("w1", 1, {USER: 2}, 0.05)
    raw = field.encode("utf-8", "surrogateescape")
    store.client.hset(store.base + "held:w1", raw, value)
    again = counts.report("w1", 1, {USER: 2}, 0.05)
    assert not again.known or again.changes[0].after == report.changes[0].after

    def reaped() -> bool:
        more = counts.reap("w1")[1]
        assert not more or eventually(lambda: not counts.reap("w1")[1])
        return not store.client.exists(store.base + "held:w1")

    eventually(reaped, 5, every=0.05)
    assert counts.report("w2", 1, {OTHER: 1}, 60).expired == []
    assert counts.totals([OTHER]) == [1]


def test_names_that_are_no_workers_are_dropped(store: Store) -> None:
    counts = store.broker.counts
    counts.report("w1", 1, {}, 60)
    store.client.zadd(store.base + "workers", {b"\xff\n": 1, "a b": 2, "": 3, "x" * 5000: 4})
    assert counts.report("w1", 2, {}, 60).expired == []
    assert store.client.zrange(store.base + "workers", 0, -1) == ["w1"]


@pytest.mark.parametrize("kind", [kind for kind in WRONG_TYPES if kind != "a list"])
def test_replies_of_another_type_are_no_replies(store: Store, kind: str) -> None:
    replace(store, "answer:q", kind)
    assert store.broker.counts.replies("q", 0) == []
    store.broker.counts.add_replies("q", [b"x"])
    store.broker.counts.add_replies("r", [b"x"])
    assert store.broker.counts.replies("r", 0) == [b"x"]


# -- the same idempotency id for other events ---------------------------------------------------------------


def test_a_repeated_id_with_more_events_is_refused(store: Store) -> None:
    events = [Publication(b"data: %d\n\n" % n, ("a",)) for n in range(5)]
    first = store.broker.publish(events[:2], "an-id")
    for others in (events[:1], events[:3]):
        with pytest.raises(InvalidEvent, match=r"'an-id' was used before for 2 events"):
            store.broker.publish(others, "an-id")
    assert store.broker.publish(events[3:], "an-id") == first
    assert store.ids() == [cursor.id for cursor in first]


@pytest.mark.parametrize("kind", [*WRONG_TYPES, "junk"])
def test_a_damaged_count_of_attempts_harms_one_user_only(store: Store, kind: str) -> None:
    worker_counts = WorkerCounts(store.broker.counts)
    limits = Limits(Settings(rate_per_user="3/hour"), worker_counts, store.broker)
    limits.count_attempt("user", "7")
    (key,) = [name for name in store.names() if name.startswith("rate")]
    if kind == "junk":
        store.client.set(store.base + key, "junk")
    else:
        replace(store, key, kind)
    for _ in range(5):
        with contextlib.suppress(Refused):  # a text or a hash may be readable as a count
            limits.count_attempt("user", "7")
    for _ in range(3):
        limits.count_attempt("user", "8")
    with pytest.raises(Refused):
        limits.count_attempt("user", "8")


FUTURE = 1_000_000_000  # microseconds

#: Texts of other programs that stand behind an entry, given the entry's epoch and id.
BEHIND: dict[str, Callable[[str, int], bytes]] = {
    "a huge id": lambda epoch, id: b"%b %b 0 -\ndata: x\n\n" % (epoch.encode(), b"9" * 400),
    "a later id": lambda epoch, id: b"%b %d 0 -\ndata: x\n\n" % (epoch.encode(), id + FUTURE),
    "no id": lambda epoch, id: b"x" * 2000,
}


def publish_around(store: Store, kind: str, at: int, count: int) -> list[int]:
    """Publishes 20 events, with `count` texts of another program behind the event `at`. Returns the ids."""
    published = [store.publish("x").id for _ in range(20)]
    epoch, key = store.broker.probe("nobody").epoch, store.base + "list:a"
    entry = store.client.lindex(key, at)
    for _ in range(count):
        store.client.linsert(key, "AFTER", entry, BEHIND[kind](epoch, published[at]))
    return published


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("at", [0, 10, 19])
def test_pages_pass_texts_of_other_programs(store: Store, kind: str, at: int) -> None:
    """Each page goes on from the last one, and the events that are missing are known to be."""
    published = publish_around(store, kind, at, 30)
    after, got, lost = 0, list[int](), set[int]()
    while True:
        page = store.broker.page({"a": after}, "nobody", 1000)
        found = page.channels["a"]
        got += [each.id for each in found.entries]
        lost |= {id for id in published if after < id <= min(found.start, page.until)}
        assert page.until > after, "the page does not go on"
        after = page.until
        if page.until == page.last:
            break
    assert got == sorted(got)
    assert not set(got) - set(published)
    assert set(got) | lost == set(published)


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("at", [0, 10, 19])
def test_texts_of_other_programs_are_no_newest_events(store: Store, kind: str, at: int) -> None:
    published = publish_around(store, kind, at, 10)
    found = [id for id in store.broker.newest(["a"], 15).ids if id]
    assert set(found) <= set(published)
    assert found == sorted(found, reverse=True)
