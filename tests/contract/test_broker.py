"""The contract that every broker keeps; each test runs with all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_sse_push.brokers.base import (
    READ_ROOM,
    Broker,
    ChannelHistory,
    Echo,
    Link,
    LinkMessage,
    LiveEvent,
    Subscribed,
)
from flask_sse_push.errors import InvalidEvent
from flask_sse_push.protocol.cursor import MAX_ID, Cursor
from flask_sse_push.protocol.entry import Entry, Publication
from tests.support.deadline import eventually, stretched

from .conftest import MakeBroker


def event(text: str, *channels: str) -> Publication:
    return Publication(b"data: %b\n\n" % text.encode(), channels or ("a",))


def publish(broker: Broker, text: str, *channels: str) -> Cursor:
    return broker.publish([event(text, *channels)])[0]


def ids(entries: Sequence[Entry]) -> list[int]:
    return [entry.id for entry in entries]


def history_of(broker: Broker, after: int = 0, channel: str = "a") -> ChannelHistory:
    return broker.history({channel: after}, "nobody").channels[channel]


def receive(link: Link, count: int, seconds: float = 5.0) -> list[LinkMessage]:
    """The next `count` messages, and those that came with them."""
    signals: list[LinkMessage] = []

    def enough() -> bool:
        signals.extend(link.read(0.1))
        return len(signals) >= count

    eventually(enough, seconds, every=0)
    return signals


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    """A link that is subscribed to the channels a and b."""
    link = broker.link("ear")
    link.subscribe(["a", "b"])
    assert receive(link, 2) == [Subscribed("a"), Subscribed("b")]
    yield link
    link.close()


# -- ids and the chain ---------------------------------------------------------------------------------------


def test_ids_increase_strictly_over_all_channels(broker: Broker) -> None:
    cursors = [publish(broker, "x", name) for name in "abcabcabc"]
    assert len({cursor.epoch for cursor in cursors}) == 1
    numbers = [cursor.id for cursor in cursors]
    assert numbers == sorted(set(numbers))


def test_an_id_is_the_time_in_microseconds(broker: Broker) -> None:
    before = time.time_ns() // 1000
    cursor = publish(broker, "x")
    after = time.time_ns() // 1000
    assert before <= cursor.id <= after
    assert after < MAX_ID


def test_history_and_probes_take_positions_of_their_own(broker: Broker) -> None:
    positions = [publish(broker, "x").id, broker.history({"a": 0}, "ear").last, broker.probe("ear").id]
    positions += [publish(broker, "y").id]
    assert positions == sorted(set(positions))


def test_a_new_broker_has_an_epoch_of_its_own_and_keeps_it(make_broker: MakeBroker) -> None:
    first, second = make_broker(), make_broker()
    epoch = first.probe("ear").epoch
    assert publish(first, "x").epoch == epoch == first.history({}, "ear").epoch
    assert second.probe("ear").epoch != epoch


def test_each_entry_names_the_one_before_it_in_its_channel(broker: Broker) -> None:
    in_a = [publish(broker, "1", "a"), publish(broker, "2", "a", "b"), publish(broker, "3", "a")]
    in_b = [in_a[1], publish(broker, "4", "b")]
    for name, cursors in (("a", in_a), ("b", in_b)):
        found = history_of(broker, channel=name)
        assert ids(found.entries) == [cursor.id for cursor in cursors]
        assert [entry.prev for entry in found.entries] == [0, *ids(found.entries)[:-1]]
        assert found.head == cursors[-1].id


def test_one_event_for_several_channels_has_one_id_and_says_so(broker: Broker) -> None:
    cursor = publish(broker, "x", "a", "b", "c")
    alone = publish(broker, "y", "a")
    history = broker.history(dict.fromkeys("abc", 0), "ear")
    for name in "abc":
        entry = history.channels[name].entries[0]
        assert (entry.id, entry.shared) == (cursor.id, True)
    assert not history.channels["a"].entries[1].shared
    assert ids(history.channels["a"].entries) == [cursor.id, alone.id]


# -- several events in one step ------------------------------------------------------------------------------


def test_several_events_are_stored_and_announced_in_order(broker: Broker, link: Link) -> None:
    cursors = broker.publish([event("1", "a"), event("2", "a", "b"), event("3", "b"), event("4", "a")])
    numbers = [cursor.id for cursor in cursors]
    assert numbers == sorted(set(numbers))
    assert ids(history_of(broker, channel="a").entries) == [numbers[0], numbers[1], numbers[3]]
    assert ids(history_of(broker, channel="b").entries) == [numbers[1], numbers[2]]
    heard = [
        (signal.channel, Entry.parse(signal.stored).id)
        for signal in receive(link, 5)
        if isinstance(signal, LiveEvent)
    ]
    first, second, third, fourth = numbers
    assert heard == [("a", first), ("a", second), ("b", second), ("b", third), ("a", fourth)]


def test_nothing_is_published_by_no_events(broker: Broker) -> None:
    assert broker.publish([]) == []
    assert history_of(broker).entries == []


def test_several_events_stay_together_among_other_publishers(broker: Broker) -> None:
    def publish_three(_: int) -> list[int]:
        return [cursor.id for cursor in broker.publish([event("x") for _ in range(3)])]

    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(publish_three, range(80)))
    assert ids(history_of(broker).entries) == [id for batch in sorted(batches) for id in batch]


# -- history -------------------------------------------------------------------------------------------------


def test_history_is_exact_after_every_position(broker: Broker) -> None:
    published = [publish(broker, str(n)).id for n in range(40)]
    for at, after in enumerate([0, *published]):
        found = history_of(broker, after)
        assert ids(found.entries) == published[at:], f"after {at} events"
        assert found.start <= after
        assert found.head == published[-1]
    between = history_of(broker, published[20] - 1)
    assert ids(between.entries) == published[20:]


def test_nothing_comes_after_a_position_in_the_future(broker: Broker) -> None:
    newest = publish(broker, "x").id
    for after in (newest + 10**9, MAX_ID):
        found = history_of(broker, after)
        assert (found.entries, found.head) == ([], newest)


def test_an_unused_channel_has_a_complete_and_empty_history(broker: Broker) -> None:
    position = publish(broker, "x", "other").id
    found = history_of(broker, position, "a")
    assert (found.entries, found.head, found.start) == ([], 0, position)
    assert history_of(broker, 0, "a").start == 0


def test_several_channels_are_read_in_one_step(broker: Broker) -> None:
    first = publish(broker, "1", "a")
    second = publish(broker, "2", "b")
    third = publish(broker, "3", "a", "b")
    history = broker.history({"a": first.id, "b": 0, "c": 0}, "ear")
    assert history.epoch == first.epoch
    assert history.last > third.id
    assert ids(history.channels["a"].entries) == [third.id]
    assert ids(history.channels["b"].entries) == [second.id, third.id]
    assert history.channels["c"].entries == []


def test_many_channels_in_one_call(broker: Broker) -> None:
    names = [f"user:{n}" for n in range(500)]
    published = {name: publish(broker, name, name).id for name in names}
    history = broker.history(dict.fromkeys(names, 0), "ear")
    assert {name: found.head for name, found in history.channels.items()} == published
    assert all(len(found.entries) == 1 for found in history.channels.values())


# -- bounds --------------------------------------------------------------------------------------------------


def test_a_channel_keeps_its_newest_events_and_says_what_is_gone(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=5)
    published = [publish(broker, str(n)).id for n in range(12)]
    kept, last_gone = published[-5:], published[-6]
    for after in (0, *published[:-6]):
        found = history_of(broker, after)
        assert found.start == last_gone > after
        assert ids(found.entries) == kept
    for at, after in enumerate([last_gone, *kept]):
        found = history_of(broker, after)
        assert found.start <= after
        assert ids(found.entries) == kept[at:]


def test_a_size_of_one_keeps_one(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=1)
    first, second = publish(broker, "1").id, publish(broker, "2").id
    found = history_of(broker, first)
    assert (found.start, ids(found.entries)) == (first, [second])
    assert history_of(broker, 0).start == first


def test_events_of_one_step_may_be_more_than_a_channel_keeps(make_broker: MakeBroker) -> None:
    broker = make_broker(history_size=3)
    published = [cursor.id for cursor in broker.publish([event(str(n)) for n in range(10)])]
    found = history_of(broker)
    assert (ids(found.entries), found.start) == (published[-3:], published[-4])


def test_a_quiet_channel_expires_and_its_history_says_so(make_broker: MakeBroker) -> None:
    broker = make_broker(history_ttl=1.5)
    first, second = publish(broker, "1").id, publish(broker, "2").id
    assert ids(history_of(broker).entries) == [first, second]
    eventually(lambda: not history_of(broker).entries, 5)
    for after in (0, first):
        assert history_of(broker, after).start > after
    young = broker.probe("ear").id
    assert history_of(broker, young).start <= young


def test_an_expired_channel_starts_again_and_its_old_positions_stay_gone(make_broker: MakeBroker) -> None:
    broker = make_broker(history_ttl=1.5)
    old = publish(broker, "old", "a").id
    eventually(lambda: not history_of(broker).entries, 5)
    publish(broker, "word from elsewhere", "b")  # lets the broker forget that the channel was
    young = broker.probe("ear").id
    new = publish(broker, "new", "a").id
    found = history_of(broker, young)
    assert (found.start, ids(found.entries)) == (young, [new])
    for after in (0, old - 1):
        assert history_of(broker, after).start > after


def test_a_channel_in_use_does_not_expire(make_broker: MakeBroker) -> None:
    broker = make_broker(history_ttl=1.5)
    published = [publish(broker, "0").id]

    def another_one() -> bool:
        published.append(publish(broker, str(len(published))).id)
        return published[-1] - published[0] > 2_000_000

    eventually(another_one, 10, every=0.1)
    publish(broker, "elsewhere", "b")
    found = history_of(broker)
    assert ids(found.entries) == published
    assert history_of(broker, published[0]).start <= published[0]


# -- idempotency ---------------------------------------------------------------------------------------------


def test_the_same_id_stores_and_announces_once(broker: Broker, link: Link) -> None:
    events = [event("1", "a"), event("2", "a", "b")]
    first = broker.publish(events, "order-1")
    again = [broker.publish(events, "order-1") for _ in range(3)]
    other = broker.publish([event("3", "b")], "order-2")
    assert again == [first, first, first]
    assert ids(history_of(broker, channel="a").entries) == [cursor.id for cursor in first]
    assert ids(history_of(broker, channel="b").entries) == [first[1].id, other[0].id]
    broker.probe("ear")
    heard = [signal for signal in receive(link, 5) if isinstance(signal, LiveEvent)]
    assert [Entry.parse(signal.stored).id for signal in heard] == [
        first[0].id,
        first[1].id,
        first[1].id,
        other[0].id,
    ]


def test_the_same_id_at_the_same_time_stores_once(broker: Broker) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: broker.publish([event("x")], "once"), range(40)))
    assert all(answer == answers[0] for answer in answers)
    assert len(history_of(broker).entries) == 1


def test_without_an_id_equal_events_are_different_ones(broker: Broker) -> None:
    assert publish(broker, "same") != publish(broker, "same")
    assert len(history_of(broker).entries) == 2


# -- live ----------------------------------------------------------------------------------------------------


def test_each_subscription_is_confirmed_in_order(broker: Broker) -> None:
    link = broker.link("ear")
    link.subscribe(["c", "a"])
    link.subscribe(["b"])
    assert receive(link, 3) == [Subscribed("c"), Subscribed("a"), Subscribed("b")]
    link.close()


def test_a_live_event_is_what_the_history_holds(broker: Broker, link: Link) -> None:
    publish(broker, "x", "a")
    heard = receive(link, 1)[0]
    assert isinstance(heard, LiveEvent)
    live, stored = Entry.parse(heard.stored, heard.channel), history_of(broker).entries[0]
    assert all(getattr(live, name) == getattr(stored, name) for name in Entry.__slots__)


def test_an_echo_comes_after_all_events_before_its_position(broker: Broker, link: Link) -> None:
    expected: list[tuple[str, int]] = []
    for n in range(30):
        expected.append(("event", publish(broker, str(n), "ab"[n % 2]).id))
        if n % 7 == 0:
            expected.append(("echo", broker.history({"a": 0}, "ear").last))
        if n % 10 == 0:
            expected.append(("echo", broker.probe("ear").id))
    signals = receive(link, len(expected))
    heard = [
        ("echo", signal.last) if isinstance(signal, Echo) else ("event", Entry.parse(signal.stored).id)
        for signal in signals
        if not isinstance(signal, Subscribed)
    ]
    assert heard == expected


def test_an_echo_goes_to_the_link_of_the_probe(broker: Broker, link: Link) -> None:
    other = broker.link("other")
    other.subscribe(["c"])
    receive(other, 1)
    snapshot = broker.probe("other")
    assert receive(other, 1) == [Echo(snapshot.epoch, snapshot.id)]
    assert link.read(0.1) == []
    other.close()


def test_a_link_gets_nothing_from_channels_it_left(broker: Broker, link: Link) -> None:
    link.unsubscribe(["a"])
    broker.history({}, "ear")
    link.subscribe(["c"])
    while Subscribed("c") not in receive(link, 1):
        pass
    publish(broker, "1", "a")
    wanted = publish(broker, "2", "b")
    snapshot = broker.probe("ear")
    heard = receive(link, 2)
    assert [signal.channel for signal in heard if isinstance(signal, LiveEvent)] == ["b"]
    assert heard[-1] == Echo(snapshot.epoch, snapshot.id)
    assert wanted.id < snapshot.id


def test_a_repeated_subscription_is_confirmed_again(broker: Broker, link: Link) -> None:
    link.subscribe(["a"])
    assert receive(link, 1) == [Subscribed("a")]
    publish(broker, "x", "a")
    broker.probe("ear")
    assert len([signal for signal in receive(link, 2) if isinstance(signal, LiveEvent)]) == 1


def test_two_links_get_the_same_events(broker: Broker, link: Link) -> None:
    other = broker.link("other")
    other.subscribe(["b", "a"])
    receive(other, 2)
    for name in "abba":
        publish(broker, name, name)
    assert receive(link, 4) == receive(other, 4)
    other.close()


def test_a_closed_link_does_not_hold_up_others(broker: Broker, link: Link) -> None:
    other = broker.link("other")
    other.subscribe(["a"])
    receive(other, 1)
    other.close()
    other.close()
    publish(broker, "x", "a")
    assert len(receive(link, 1)) == 1


def test_a_read_waits_for_its_time_and_returns_nothing(link: Link) -> None:
    start = time.monotonic()
    assert link.read(0.2) == []
    assert 0.15 < time.monotonic() - start < stretched(1.0)


def test_a_read_returns_what_is_there_at_once(broker: Broker, link: Link) -> None:
    publish(broker, "x", "a")
    start = time.monotonic()
    assert len(link.read(30)) == 1
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("count", "size"), [(5000, 10), (60, 20_000)])
def test_a_read_returns_no_more_than_its_room(broker: Broker, link: Link, count: int, size: int) -> None:
    """However many events have arrived, one read neither takes long nor fills the memory."""
    cursors = broker.publish([event("x" * size, "a") for _ in range(count)])
    reads: list[list[LinkMessage]] = []

    def all_have_come() -> bool:
        reads.append(link.read(0.1))
        return sum(map(len, reads)) >= count

    eventually(all_have_come, 20, every=0)
    found = [message for messages in reads for message in messages if isinstance(message, LiveEvent)]
    assert ids([Entry.parse(each.stored, "a") for each in found]) == [each.id for each in cursors]
    assert max(map(len, reads)) <= READ_ROOM // (size + 500) + 1


def test_a_wake_ends_a_read_that_waits(broker: Broker, link: Link) -> None:
    results: list[list[LinkMessage]] = []
    waiting = threading.Thread(target=lambda: results.append(link.read(60)), daemon=True)
    waiting.start()

    def woken() -> bool:
        broker.wake("ear")
        return bool(results)

    eventually(woken, 5)
    assert results == [[]]
    waiting.join(5)


def test_a_wake_of_an_unknown_link_is_harmless(broker: Broker) -> None:
    broker.wake("nobody")


def test_a_broker_may_be_closed_twice(broker: Broker) -> None:
    publish(broker, "x")
    broker.close()
    broker.close()


# -- what goes in comes out ----------------------------------------------------------------------------------

ODD = [
    "",
    "a b",
    "x&y=z",
    "100%",
    "+1;2",
    "ü€𝄞",
    "line\nbreak",
    "\r",
    "\0",
    "\u2028",
    "' \"",
    "-",
    "{}:*?[a]",
]


def both(broker: Broker, link: Link, publication: Publication) -> list[Entry]:
    """The entry as the history holds it, and as the link got it."""
    broker.publish([publication])
    heard = receive(link, 1)[0]
    assert isinstance(heard, LiveEvent)
    return [history_of(broker).entries[-1], Entry.parse(heard.stored)]


@pytest.mark.parametrize("name", ODD[1:])
def test_an_exclusion_survives_with_odd_characters(broker: Broker, link: Link, name: str) -> None:
    for entry in both(broker, link, Publication(b"data: x\n\n", ("a",), exclude=(name, "plain"))):
        assert entry.exclude == {name, "plain"}
        assert entry.frame.endswith(b"\ndata: x\n\n")


def test_all_that_an_event_carries_survives_together(broker: Broker, link: Link) -> None:
    publication = Publication(b"data: x\n\n", ("a", "b"), exclude=tuple(ODD[1:]), ttl=1.5)
    for entry in both(broker, link, publication):
        assert entry.exclude == set(ODD[1:])
        assert entry.expires == entry.id + 1_500_000
        assert entry.shared


@pytest.mark.parametrize(("ttl", "micros"), [(0.0, 0), (0.000001, 1), (0.25, 250_000), (1e8, 10**14)])
def test_a_time_to_live_survives(broker: Broker, link: Link, ttl: float, micros: int) -> None:
    for entry in both(broker, link, Publication(b"data: x\n\n", ("a",), ttl=ttl)):
        assert entry.expires == entry.id + micros


def test_without_a_time_to_live_an_event_never_expires(broker: Broker, link: Link) -> None:
    for entry in both(broker, link, Publication(b"data: x\n\n", ("a",))):
        assert (entry.expires, entry.exclude, entry.shared) == (0, frozenset(), False)


BODIES: list[Callable[[], bytes]] = [
    lambda: bytes(range(256)) * 4,
    lambda: b"\0",
    lambda: b"\n\n\r\n\r 1 2 -\n",
    lambda: b"",
    lambda: b"data: " + bytes(range(256)) * 400 + b"\n\n",
]


@pytest.mark.parametrize("make_body", BODIES, ids=["every byte", "NUL", "newlines", "nothing", "100 kB"])
def test_bodies_are_bytes(broker: Broker, link: Link, make_body: Callable[[], bytes]) -> None:
    body = make_body()
    for entry in both(broker, link, Publication(body, ("a",))):
        assert entry.frame == b"id: %b\n%b" % (str(Cursor(entry.epoch, entry.id)).encode(), body)


@pytest.mark.parametrize("name", ["A-Z_a.z/0:9@x", "x" * 200, "{tag}", "*"])
def test_any_channel_name_works(broker: Broker, name: str) -> None:
    link = broker.link("ear")
    link.subscribe([name])
    assert receive(link, 1) == [Subscribed(name)]
    cursor = publish(broker, "x", name)
    heard = receive(link, 1)[0]
    assert isinstance(heard, LiveEvent)
    assert heard.channel == name
    assert ids(history_of(broker, channel=name).entries) == [cursor.id]
    link.close()


# -- many at once --------------------------------------------------------------------------------------------


def test_publishers_in_eight_threads_leave_no_hole(broker: Broker, link: Link) -> None:
    channels: list[tuple[str, ...]] = [("a",), ("b",), ("a", "b")]

    def publish_fifty(thread: int) -> list[Cursor]:
        return [publish(broker, f"{thread}.{n}", *channels[(thread + n) % 3]) for n in range(50)]

    with ThreadPoolExecutor(8) as pool:
        cursors = [cursor for part in pool.map(publish_fifty, range(8)) for cursor in part]
    assert len(set(cursors)) == 400
    history = broker.history({"a": 0, "b": 0}, "ear")
    for found in history.channels.values():
        assert [entry.prev for entry in found.entries] == [0, *ids(found.entries)[:-1]]
    assert {id for found in history.channels.values() for id in ids(found.entries)} == {c.id for c in cursors}
    announced: dict[str, list[int]] = {"a": [], "b": []}
    for signal in receive(link, sum(len(found.entries) for found in history.channels.values()) + 1):
        if isinstance(signal, LiveEvent):
            announced[signal.channel].append(Entry.parse(signal.stored).id)
    assert announced == {name: ids(found.entries) for name, found in history.channels.items()}


# -- claims -------------------------------------------------------------------------------------------------


def test_a_claimed_name_is_taken_until_its_time_is_over(broker: Broker) -> None:
    assert broker.claim("x", 30)
    assert not broker.claim("x", 30)
    assert broker.claim("y", 0.05)
    assert not broker.claim("x", 30)
    eventually(lambda: broker.claim("y", 30))
    assert not broker.claim("y", 30)


def test_one_of_many_simultaneous_claims_succeeds(broker: Broker) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(lambda _: broker.claim("x", 30), range(200)))[-2:] == [False, True]


# -- several events, each in a step of its own ---------------------------------------------------------------


def test_each_of_several_events_is_stored_once_and_in_order(broker: Broker, link: Link) -> None:
    events = [(event(str(n), "a", "b") if n % 10 == 0 else event(str(n)), f"each:{n}") for n in range(30)]
    broker.publish_each(events[:20])
    broker.publish_each(events)
    broker.publish_each([])
    stored = history_of(broker).entries
    assert [entry.frame.partition(b"data: ")[2] for entry in stored] == [b"%d\n\n" % n for n in range(30)]
    assert len(history_of(broker, channel="b").entries) == 3
    live = [message for message in receive(link, 33) if isinstance(message, LiveEvent)]
    assert len(live) == 33
    broker.publish([event("x"), event("y")], "two")
    with pytest.raises(InvalidEvent, match="'two' was used before for 2 events, but this call has 1"):
        broker.publish_each([(event("30"), "each:30"), (event("x"), "two")])
    assert len(history_of(broker).entries) == 33
