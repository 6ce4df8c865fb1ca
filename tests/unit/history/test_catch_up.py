"""Streams that missed more than one history call may read; streams that are gone; channels that fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flask_sse_push.brokers.base import UNBOUNDED, History, Newest
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.history import channel_caches, fetcher
from flask_sse_push.history.channel_cache import KEPT_FILLED, NOW, ChannelCache
from flask_sse_push.history.page import PageRequest, Waiter
from flask_sse_push.history.position import Opening, Reset, StartPoint
from flask_sse_push.history.read_queue import ChannelRead, HistoryRequest, PageRead, ReadQueue
from flask_sse_push.history.recovery_driver import ShardRecovery, Step
from flask_sse_push.history.room import Room
from flask_sse_push.protocol.cursor import EARLIEST, MAX_ID, Cursor
from flask_sse_push.protocol.entry import Publication
from tests.unit.history.test_history_cache import Bench, Flaky, ids

#: Room for two events of the bench.
TWO_EVENTS = 1040


def bench(*names: str, room: int = TWO_EVENTS) -> Bench:
    made = Bench(*names)
    made.fetcher.queue.call_room = room
    return made


def publish_and_forget(made: Bench, count: int) -> None:
    """Publishes events on channel `a`, and drops them from the channel cache: the broker still has them."""
    for _ in range(count):
        made.publish("a")
    made.run()
    made.history_cache.caches["a"].trim(0, 0)


def steps(made: Bench, recovery: ShardRecovery) -> list[Step]:
    """Lets a stream catch up; returns its steps."""
    found: list[Step] = []
    for _ in range(100):
        step = recovery.next()
        if step is None:
            made.run()
            continue
        found.append(step)
        if step.is_complete:
            return found
    raise AssertionError("the stream never catches up")


def events(found: list[Step]) -> list[int]:
    return [entry.id for step in found for entry in step.chunk.entries]


def resets(found: list[Step]) -> list[Reset]:
    return [reset for step in found for reset in step.resets]


# -- pages ---------------------------------------------------------------------------------------------------


def test_a_stream_that_missed_more_than_a_call_may_read_gets_every_event_in_order() -> None:
    made = bench("a", "b")
    first = made.publish("a")
    published = [made.publish(name) for name in ("a", "b", "b", "a", "a", "b", "a") * 5]
    made.history_cache.take([made.messages()])
    for cache in made.history_cache.caches.values():
        cache.trim(2, UNBOUNDED)
    recovery = made.recovery(("a", "b"), StartPoint(str(Cursor(made.broker._epoch, first))))
    found = steps(made, recovery)
    assert events(found) == published
    assert not resets(found)
    assert len(found) > 10, "one step has no more than a page"


@pytest.mark.parametrize("newest", [1, 7, 30])
def test_the_newest_events_are_found_without_reading_the_others(newest: int) -> None:
    made = bench("a", "b")
    published = [made.publish(name) for name in "aaaaabbbbb" * 4]
    made.history_cache.take([made.messages()])
    for cache in made.history_cache.caches.values():
        cache.trim(0, 0)
    found = steps(made, made.recovery(("a", "b"), StartPoint(newest=newest)))
    assert events(found) == published[-newest:]
    assert not resets(found)


def test_a_stream_that_wants_everything_gets_what_the_broker_keeps() -> None:
    made = Bench("a", "b", size=5)
    made.fetcher.queue.call_room = TWO_EVENTS
    published = [made.publish(name) for name in "ab" * 20]
    made.run()
    found = steps(made, made.recovery(("a", "b"), StartPoint(EARLIEST)))
    assert events(found) == published[-10:]
    assert not resets(found)


@pytest.mark.parametrize("start", [StartPoint(EARLIEST), StartPoint(newest=5)])
def test_a_stream_that_finds_no_kept_event_begins_at_the_position_of_the_worker(start: StartPoint) -> None:
    made = bench("a", "b")
    made.publish("b")
    made.run()
    (step,) = steps(made, ShardRecovery(made.history_cache, ("a",), start))
    snapshot = made.history_cache.snapshot
    assert snapshot is not None
    assert step.opening == Opening(str(Cursor(snapshot.epoch, snapshot.position)), False)


def test_events_that_go_while_a_stream_reads_pages_are_a_reset() -> None:
    made = Bench("a", "b", size=20)
    made.fetcher.queue.call_room = TWO_EVENTS
    first = made.publish("a")
    for name in "ab" * 9:
        made.publish(name)
    made.history_cache.take([made.messages()])
    for cache in made.history_cache.caches.values():
        cache.trim(0, 0)
    recovery = made.recovery(("a", "b"), StartPoint(str(Cursor(made.broker._epoch, first))))
    while recovery.next() is None:
        made.run()
    publish_and_forget(made, 25)
    found = steps(made, recovery)
    assert [reset.channels for reset in resets(found)] == [["a"]]


def test_a_page_gives_its_room_back_when_it_was_sent() -> None:
    made = bench("a")
    publish_and_forget(made, 20)
    room = made.fetcher.queue._room
    steps(made, made.recovery(("a",), StartPoint(EARLIEST)))
    assert room.taken == 0


def test_the_caches_of_all_channels_together_have_a_bound() -> None:
    made = Bench("a", "b", "c")
    made.history_cache._hold = 20_000
    for name in "abc" * 50:
        made.publish(name)
        made.run()
    made.history_cache.trim()
    assert sum(cache.cost for cache in made.history_cache.caches.values()) <= 20_000


def test_the_caches_are_counted_only_when_they_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    made, counted = Bench("a", "b"), list[ChannelCache]()
    made.history_cache._hold = 20_000
    monkeypatch.setattr(ChannelCache, "cost", property(counted.append))
    made.publish("a")
    made.run()
    made.history_cache.tend()
    assert not counted
    for _ in range(40):
        made.publish("b")
        made.run()
    with pytest.raises(TypeError):  # the cost that is no number
        made.history_cache.tend()
    assert counted


def test_entries_that_one_stream_needed_are_given_back_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_caches, "FRESH", 3)
    made = Bench("a")
    published = [made.publish("a") for _ in range(20)]
    made.run()
    made.history_cache.caches["a"].trim(0, 0)
    assert events(steps(made, made.recovery(("a",), StartPoint(EARLIEST)))) == published
    for _ in range(KEPT_FILLED):
        assert made.known("a") == published
        made.history_cache.tend()
    assert made.known("a") == published[-3:]
    for _ in range(KEPT_FILLED):
        made.history_cache.tend()
    assert events(steps(made, made.recovery(("a",), StartPoint(EARLIEST)))) == published


def test_events_whose_time_is_over_are_not_sent_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Bench("a", "b")
    caches, other = made.history_cache.caches, made.publish("b")
    first = made.publish("a")
    published = [made.publish("a") for _ in range(3)]
    made.run()
    caches["a"].ttl, now = 1e6, float(published[-1])
    made.history_cache._drop_every = 0.5e6
    for seconds, known in ((0.5, [first, *published]), (1.1, [])):
        monkeypatch.setattr(made.history_cache, "clock", lambda at=now + seconds * 1e6: at)
        made.history_cache.tend()
        assert made.known("a") == known
        assert made.known("b") == [other]
    cursor = str(Cursor(made.broker._epoch, first))
    assert events(steps(made, made.recovery(("a",), StartPoint(cursor)))) == published  # the broker has them
    monkeypatch.setattr(made.history_cache, "clock", lambda: now + 2e6)
    made.history_cache.tend()
    with made.broker._lock:
        made.broker._lists.pop("a")  # as after the time of its policy
    for start, channels in (
        (StartPoint(cursor), [["a"]]),
        (StartPoint(EARLIEST), []),
        (StartPoint(newest=9), []),
    ):
        found = steps(made, made.recovery(("a",), start))
        assert events(found) == []
        assert [reset.channels for reset in resets(found)] == channels
    fresh = made.publish("a")
    made.run()
    assert events(steps(made, made.recovery(("a",), StartPoint(EARLIEST)))) == [fresh]


# -- what streams share --------------------------------------------------------------------------------------


def returning(made: Bench, after: int) -> StartPoint:
    """The start of a client that comes back with the cursor of the event `after`."""
    return StartPoint(str(Cursor(made.broker._epoch, after)))


def test_streams_that_come_back_with_the_same_cursor_share_their_only_step() -> None:
    made = Bench("a")
    seen, *missed = [made.publish("a") for _ in range(3)]
    made.run()
    first, second = (made.recovery(("a",), returning(made, seen)) for _ in range(2))
    (step,) = steps(made, first)
    assert second.next() is step
    assert events([step]) == missed
    assert second.is_complete()
    assert second.positions == first.positions
    fresh = made.publish("a")
    made.run()
    assert [events(steps(made, stream)) for stream in (first, second)] == [[fresh], [fresh]]
    assert events(steps(made, made.recovery(("a",), returning(made, seen)))) == [*missed, fresh]
    assert events(steps(made, made.recovery(("a",), returning(made, missed[0])))) == [missed[1], fresh]


def test_a_stream_shares_no_step_with_events_that_the_cache_has_given_up() -> None:
    made = Bench("a")
    seen, *missed = [made.publish("a") for _ in range(3)]
    made.run()
    assert events(steps(made, made.recovery(("a",), returning(made, seen)))) == missed
    made.history_cache.caches["a"].trim(0, 0)
    with made.broker._lock:
        made.broker._lists.pop("a")
    found = steps(made, made.recovery(("a",), returning(made, seen)))
    assert events(found) == []
    assert [reset.channels for reset in resets(found)] == [["a"]]


def test_a_stream_that_asks_the_broker_shares_no_step() -> None:
    made = Bench("a")
    seen, missed = made.publish("a"), made.publish("a")
    made.run()
    start = returning(made, seen)
    assert events(steps(made, made.recovery(("a",), start))) == [missed]
    for _ in range(2):
        asking = made.recovery(("a",), start._replace(asks_broker=True))
        assert asking.next() is None
        assert events(steps(made, asking)) == [missed]


def test_a_step_with_an_event_that_expires_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Bench("a")
    seen, lasting = made.publish("a"), made.publish("a")
    made.broker.publish([Publication(b"data: x\n\n", ("a",), ttl=60)])
    made.run()
    (step,) = steps(made, made.recovery(("a",), returning(made, seen)))[-1:]
    assert len(step.chunk.entries) == 2
    over = step.chunk.entries[-1].expires + 1
    monkeypatch.setattr(made.history_cache, "clock", lambda: over)
    assert events(steps(made, made.recovery(("a",), returning(made, seen)))) == [lasting]


# -- what is read first, and what is not read ----------------------------------------------------------------


def queue() -> ReadQueue:
    return ReadQueue(Room(10_000), 1000)


def test_asks_of_streams_that_are_gone_are_not_sent() -> None:
    reads, gone, here = queue(), Waiter(), Waiter()
    reads.add("a", HistoryRequest(5, gone))
    reads.add("b", HistoryRequest(6, gone))
    reads.add("b", HistoryRequest(7, here))
    page = PageRequest({"c": 1})
    page.waiters.add(gone)
    reads.add_page(page)
    gone.gone = True
    read = reads.take()
    assert isinstance(read, ChannelRead)
    assert read.after == {"b": 7}
    probe = reads.take()
    assert isinstance(probe, ChannelRead)
    assert not probe.requests
    assert not len(reads)


def test_a_channel_that_joins_is_read_without_what_a_gone_stream_wanted() -> None:
    reads, gone = queue(), Waiter()
    request = HistoryRequest(NOW, is_join=True)
    request.merge(HistoryRequest(0, gone))
    gone.gone = True
    reads.add("a", request)
    read = reads.take()
    assert isinstance(read, ChannelRead)
    assert read.after == {"a": NOW}


def test_a_recovery_that_was_closed_asks_for_nothing_more() -> None:
    made = bench("a")
    publish_and_forget(made, 20)
    recovery = made.recovery(("a",), StartPoint(EARLIEST))
    assert recovery.next() is None
    recovery.close()
    read = made.fetcher.queue.take()
    assert isinstance(read, ChannelRead)
    assert not read.requests


def test_channels_that_hold_the_dispatch_are_read_before_everything_else() -> None:
    reads, here = queue(), Waiter()
    page = PageRequest({"page": 1})
    page.waiters.add(here)
    reads.add_page(page)
    reads.add("asked", HistoryRequest(0, here))
    reads.add_page(PageRequest({"resync": 1}, is_resync=True))
    reads.add("join", HistoryRequest(3, is_join=True))
    first, second = reads.take(), reads.take()
    assert isinstance(first, ChannelRead)
    assert list(first.requests) == ["join"]
    assert isinstance(second, PageRead)
    assert second.request.is_resync


def test_a_full_room_lets_catch_ups_wait_but_no_join() -> None:
    reads, here = queue(), Waiter()
    taken = reads._room.take(9500)
    page = PageRequest({"page": 1})
    page.waiters.add(here)
    reads.add_page(page)
    reads.add("asked", HistoryRequest(0, here))
    joins = HistoryRequest(NOW, is_join=True)
    joins.merge(HistoryRequest(0, here))
    reads.add("join", joins)
    read = reads.take()
    assert isinstance(read, ChannelRead)
    assert read.after == {"join": NOW}, "the channel goes live; its stream asks again for older events"
    probe = reads.take()
    assert isinstance(probe, ChannelRead)
    assert not probe.requests
    assert page.is_crowded
    del taken
    assert {type(reads.take()), type(reads.take())} == {ChannelRead, PageRead}
    assert not page.is_crowded


def test_a_resync_goes_on_while_streams_read_pages() -> None:
    made = bench("a", "live")
    publish_and_forget(made, 30)
    recoveries = [made.recovery(("a",), StartPoint(newest=n)) for n in range(5, 25)]
    assert all(recovery.next() is None for recovery in recoveries)
    made.cut()
    missed = [made.publish("live") for _ in range(10)]
    made.link.subscribe(list(made.history_cache.caches))
    made.hear()
    found: list[int] = []
    calls = 0
    while not found:
        found = ids(made.history_cache.take([made.fetch(), made.messages()]))
        calls += 1
        assert calls < 10, "a resync must not wait for the pages of streams"
    assert found == missed
    assert all(events(steps(made, recovery)) for recovery in recoveries)


def test_a_search_for_the_newest_events_lets_other_requests_go_between_its_calls() -> None:
    made = bench("a", "b")
    published = [made.publish("a") for _ in range(20)]
    publish_and_forget(made, 0)
    made.history_cache.caches["a"].is_too_small = True
    found, calls = made.broker.newest, list[str]()

    def few(channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        calls.append("search")
        return found(channels, min(count, 3), before)

    made.broker.newest = few  # type: ignore[method-assign]
    recoveries = [made.recovery(("a",), StartPoint(newest=15)) for _ in range(2)]
    assert recoveries[0].next() is None
    made.fetcher._fetch()
    assert calls == ["search"]
    assert recoveries[1].next() is None
    assert len(made.fetcher.queue) == 1, "both streams wait for one search"
    made.fetcher.submit("b", HistoryRequest(0, Waiter()))
    made.fetcher._fetch()
    made.fetcher._fetch()
    assert [list(reply.requests) for _, reply in made.replies] == [["b"]]
    made.history_cache.take([*[reply for _, reply in made.replies], made.messages()])
    made.replies.clear()
    assert [events(steps(made, recovery)) for recovery in recoveries] == [published[5:]] * 2
    assert calls == ["search"] * 5


def test_a_search_begins_anew_when_the_channels_are_read_again() -> None:
    made = bench("a")
    published = [made.publish("a") for _ in range(20)]
    publish_and_forget(made, 0)
    made.history_cache.caches["a"].is_too_small = True
    request = made.recovery(("a",), StartPoint(newest=15)).page_request({"a": 0})
    found, befores = made.broker.newest, list[int]()

    def few(channels: Sequence[str], count: int, before: int = MAX_ID) -> Newest:
        befores.append(before)
        return found(channels, min(count, 10), before)

    made.broker.newest = few  # type: ignore[method-assign]
    assert not made.fetcher._has_begin(request)
    made.fetcher.generation += 1
    assert not made.fetcher._has_begin(request)
    assert made.fetcher._has_begin(request)
    assert befores == [MAX_ID, MAX_ID, published[10]]
    assert request.begin == published[5] - 1


def test_events_that_a_resync_reads_in_pages_take_room_from_streams_that_catch_up() -> None:
    made = bench("a")
    publish_and_forget(made, 1)
    made.cut()
    missed = [made.publish("a") for _ in range(12)]
    room, taken = made.fetcher.queue._room, list[int]()
    made.link.subscribe(list(made.history_cache.caches))
    made.hear()
    found: list[int] = []
    while not found:
        taken.append(room.taken)
        found = ids(made.history_cache.take([made.fetch(), made.messages()]))
    assert found == missed
    assert max(taken) >= 6 * TWO_EVENTS // 2
    assert room.taken == 0


# -- channels that cannot be read ----------------------------------------------------------------------------


class Slow(Flaky):
    """A broker that never answers a call that needs entries of the channel `bad`."""

    def history(self, after: Mapping[str, int], inbox: str, room: int = UNBOUNDED) -> Any:  # type: ignore[override]
        if after.get("bad", NOW) < NOW:
            raise BrokerUnavailable("timed out")
        return super().history(after, inbox, room)

    def page(self, after: Mapping[str, int], inbox: str, room: int) -> History:
        if "bad" in after:
            raise BrokerUnavailable("timed out")
        return super().page(after, inbox, room)


def test_a_channel_that_cannot_be_read_is_a_reset_and_holds_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fetcher, "PAUSE", 0.0)
    made = Bench("bad", "good", "fine")
    made.broker.__class__ = Slow
    first = made.publish("bad")
    missed = [made.publish(name) for name in ("bad", "good", "fine")]
    made.history_cache.take([made.messages()])
    for cache in made.history_cache.caches.values():
        cache.trim(0, 0)
    start = StartPoint(str(Cursor(made.broker._epoch, first)))
    recoveries = [made.recovery((name,), start) for name in ("bad", "good", "fine")]
    assert all(recovery.next() is None for recovery in recoveries)
    with caplog.at_level(logging.ERROR):
        for _ in range(12):
            made.fetcher._fetch()
            replies = [reply for _, reply in made.replies]
            made.replies.clear()
            made.history_cache.take([*replies, made.messages()])
    assert [events(steps(made, recovery)) for recovery in recoveries[1:]] == [[missed[1]], [missed[2]]]
    found = steps(made, recoveries[0])
    assert [reset.reason for reset in resets(found)] == ["history"]
    assert [record.getMessage() for record in caplog.records if "bad" in record.getMessage()] == [
        "the events of channels bad cannot be read; streams that need them get sse.reset: timed out"
    ]
    live = made.publish("bad")
    assert live in ids(*made.run()), "the channel stays live"


def test_a_page_that_cannot_be_read_is_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PAUSE", 0.0)
    made = bench("bad")
    for _ in range(20):
        made.publish("bad")
    made.run()
    cache = made.history_cache.caches["bad"]
    cache.trim(0, 0)
    cache.is_too_small = True
    made.broker.__class__ = Slow
    recovery = made.recovery(("bad",), StartPoint(newest=15))
    assert recovery.next() is None
    for _ in range(8):
        made.fetcher._fetch()
        replies = [reply for _, reply in made.replies]
        made.replies.clear()
        made.history_cache.take([*replies, made.messages()])
    found = steps(made, recovery)
    assert events(found) == []
    assert [reset.reason for reset in resets(found)] == ["history"]


def test_a_broker_that_does_not_answer_makes_no_channel_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PAUSE", 0.0)
    made = Bench("a")
    first, missed = made.publish("a"), made.publish("a")
    made.history_cache.take([made.messages()])
    made.history_cache.caches["a"].trim(0, 0)
    recovery = made.recovery(("a",), StartPoint(str(Cursor(made.broker._epoch, first))))
    assert recovery.next() is None
    made.broker.reachable = False
    for _ in range(20):
        made.fetcher._fetch()
    assert not made.replies
    made.broker.reachable = True
    assert events(steps(made, recovery)) == [missed]


def test_streams_that_ask_for_the_same_page_both_get_it_if_the_first_call_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second stream asks while the call for the first stream is under way."""
    monkeypatch.setattr(fetcher, "PAUSE", 0.0)
    made = bench("a")
    published = [made.publish("a") for _ in range(20)]
    made.run()
    cache = made.history_cache.caches["a"]
    cache.trim(0, 0)
    cache.is_too_small = True
    first, second = (made.recovery(("a",), StartPoint(newest=15)) for _ in range(2))
    read_page, failed = made.broker.page, list[Step | None]()

    def fail_once(after: Mapping[str, int], inbox: str, room: int) -> History:
        if failed:
            return read_page(after, inbox, room)
        failed.append(second.next())
        raise BrokerUnavailable("timed out")

    monkeypatch.setattr(made.broker, "page", fail_once)
    assert first.next() is None
    made.fetcher._fetch()
    assert failed == [None]
    assert [events(steps(made, recovery)) for recovery in (first, second)] == [published[5:]] * 2
