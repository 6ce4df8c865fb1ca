"""A channel cache: which positions it covers, and how it adds live events and the history that was read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_push.brokers.base import ChannelHistory, channel_history
from flask_sse_push.history.channel_cache import NOW, SLACK, UNREAD, ChannelCache, Coverage
from flask_sse_push.protocol.cursor import MAX_ID
from flask_sse_push.protocol.entry import Entry

BODY = b"data: x\n\n"
SIZE = len(Entry("ab", 10, 0, BODY).frame)


def chain(*ids: int, prev: int = 0) -> list[Entry]:
    """Entries with these ids, each naming the one before it."""
    return [Entry("ab", id, before, BODY) for before, id in zip((prev, *ids), ids, strict=False)]


def ids(entries: list[Entry]) -> list[int]:
    return [entry.id for entry in entries]


def cache_after(floor: int, *entry_ids: int) -> ChannelCache:
    """A cache with everything after `floor`."""
    cache = ChannelCache(100)
    head = entry_ids[-1] if entry_ids else floor
    cache.adopt(ChannelHistory(floor, chain(*entry_ids, prev=floor), head), after=floor, last=MAX_ID, known=0)
    return cache


def state(cache: ChannelCache) -> tuple[list[int], int, int, int]:
    """The ids of its entries, its floor, gone and head. Checks its size, too."""
    assert cache.size == sum(len(entry.frame) for entry in cache.entries)
    return ids(cache.entries), cache.floor, cache.gone, cache.head


# -- what it covers ----------------------------------------------------------------------------------------


def test_a_new_cache_covers_no_position() -> None:
    cache = ChannelCache(100)
    assert cache.floor == UNREAD
    assert [cache.coverage(at) for at in (0, 100, NOW)] == [Coverage.ABSENT] * 3
    assert not cache.has_all_kept
    assert not cache.live
    assert cache.between(0, NOW) == []


def test_a_position_is_ready_absent_or_lost() -> None:
    cache = cache_after(50, 60)
    cache.gone = 20
    reached = {at: cache.coverage(at) for at in (0, 19, 20, 49, 50, 60, NOW)}
    assert reached == {
        0: Coverage.LOST,
        19: Coverage.LOST,
        20: Coverage.ABSENT,
        49: Coverage.ABSENT,
        50: Coverage.READY,
        60: Coverage.READY,
        NOW: Coverage.READY,
    }


def test_entries_in_the_cache_are_ready_even_if_the_broker_no_longer_has_them() -> None:
    cache = cache_after(50, 60, 70)
    cache.gone = 65
    assert cache.coverage(50) is Coverage.READY
    assert cache.coverage(49) is Coverage.LOST


@pytest.mark.parametrize(
    ("floor", "gone", "has_all"), [(50, 0, False), (50, 50, True), (50, 60, True), (0, 0, True)]
)
def test_a_cache_has_all_kept_when_the_broker_keeps_nothing_older(
    floor: int, gone: int, has_all: bool
) -> None:
    cache = cache_after(floor)
    cache.gone = gone
    assert cache.has_all_kept is has_all


@pytest.mark.parametrize(
    ("after", "until", "found"),
    [
        (0, NOW, [10, 20, 30]),
        (9, 10, [10]),
        (10, 30, [20, 30]),
        (10, 29, [20]),
        (15, 19, []),
        (20, 20, []),
        (30, NOW, []),
        (31, NOW, []),
    ],
)
def test_entries_are_found_after_one_position_up_to_another(after: int, until: int, found: list[int]) -> None:
    assert ids(cache_after(0, 10, 20, 30).between(after, until)) == found


# -- live events --------------------------------------------------------------------------------------------


def test_the_next_event_is_appended_and_becomes_the_head() -> None:
    cache = cache_after(50, 60)
    cache.append(chain(70, prev=60)[0])
    assert state(cache) == ([60, 70], 50, 0, 70)


@pytest.mark.parametrize(("prev", "gap"), [(0, False), (59, False), (60, False), (61, True)])
def test_an_event_whose_predecessor_is_unknown_shows_a_gap(prev: int, gap: bool) -> None:
    assert cache_after(50, 60).misses_one_before(Entry("ab", 70, prev, BODY)) is gap


def test_the_tail_keeps_the_newest_entries() -> None:
    cache = ChannelCache(2)
    cache.tail.extend(chain(*range(1, SLACK + 4)))
    assert ids(list(cache.tail)) == list(range(2, SLACK + 4))


# -- history ------------------------------------------------------------------------------------------------


def test_a_first_read_of_the_head_is_complete_from_the_position_of_the_read() -> None:
    cache = ChannelCache(100)
    assert cache.adopt(ChannelHistory(NOW, [], 60), after=NOW, last=80, known=0) == 80
    assert state(cache) == ([], 80, 0, 60)
    assert cache.coverage(79) is Coverage.ABSENT


def test_a_first_read_after_a_position_is_complete_from_there() -> None:
    cache = ChannelCache(100)
    assert cache.adopt(ChannelHistory(50, chain(60, 70, prev=40), 70), after=50, last=80, known=0) == 50
    assert state(cache) == ([60, 70], 50, 0, 70)


def test_a_history_that_starts_later_than_requested_says_what_is_gone() -> None:
    cache = ChannelCache(100)
    assert cache.adopt(ChannelHistory(55, chain(60, 70, prev=55), 70), after=10, last=80, known=0) == 55
    assert state(cache) == ([60, 70], 55, 55, 70)
    assert cache.coverage(54) is Coverage.LOST
    assert cache.has_all_kept


def test_events_that_are_gone_stay_gone() -> None:
    cache = cache_after(55, 60)
    cache.gone = 50
    cache.adopt(ChannelHistory(30, [], 60), after=20, last=80, known=MAX_ID)
    assert cache.gone == 50


def test_older_entries_are_put_before_the_others() -> None:
    cache = cache_after(50, 60)
    assert cache.adopt(ChannelHistory(10, chain(20, 50, 60), 60), after=10, last=80, known=MAX_ID) == 10
    assert state(cache) == ([20, 50, 60], 10, 0, 60)


def test_one_read_may_bring_older_and_newer_entries() -> None:
    cache = cache_after(50, 60)
    cache.adopt(ChannelHistory(10, chain(20, 60, 70), 70), after=10, last=80, known=MAX_ID)
    assert state(cache) == ([20, 60, 70], 10, 0, 70)


def test_older_entries_that_are_partly_gone_are_added_as_far_as_they_go() -> None:
    cache = cache_after(50, 60)
    assert cache.adopt(ChannelHistory(30, chain(40, 60, prev=30), 60), after=10, last=80, known=MAX_ID) == 30
    assert state(cache) == ([40, 60], 30, 30, 60)


def test_a_read_without_older_entries_adds_the_new_ones() -> None:
    cache = cache_after(10, 20, 30)
    cache.adopt(ChannelHistory(20, chain(30, 40, prev=20), 40), after=20, last=50, known=30)
    assert state(cache) == ([20, 30, 40], 10, 0, 40)


def test_a_read_at_a_position_below_the_floor_adds_nothing() -> None:
    # Read at 35; since then 40 and 50 came, and all up to 40 was trimmed: 40 is missing in what was read.
    cache = cache_after(40, 50)
    assert cache.adopt(ChannelHistory(10, chain(20, 30), 30), after=10, last=35, known=MAX_ID) == 10
    assert state(cache) == ([50], 40, 0, 50)
    assert cache.coverage(10) is Coverage.ABSENT


def test_a_read_of_exactly_the_trimmed_entries_fills_the_gap() -> None:
    cache = cache_after(30, 40)
    cache.adopt(ChannelHistory(10, chain(20, 30), 30), after=10, last=30, known=MAX_ID)
    assert state(cache) == ([20, 30, 40], 10, 0, 40)


def test_if_events_after_the_known_position_are_lost_the_cache_starts_over() -> None:
    cache = cache_after(10, 20, 30)
    assert cache.adopt(ChannelHistory(60, chain(70, prev=60), 70), after=30, last=80, known=30) == 60
    assert state(cache) == ([70], 60, 60, 70)


def test_if_none_of_the_lost_events_is_left_the_cache_starts_over_too() -> None:
    cache = cache_after(10, 20, 30)
    assert cache.adopt(ChannelHistory(60, [], 60), after=30, last=80, known=30) == 60
    assert state(cache) == ([], 60, 60, 60)


def test_a_start_at_the_known_position_is_no_loss() -> None:
    cache = cache_after(10, 20, 30)
    assert cache.adopt(ChannelHistory(30, chain(40, prev=30), 40), after=30, last=80, known=30) == 30
    assert state(cache) == ([20, 30, 40], 10, 0, 40)


def test_the_head_never_goes_back() -> None:
    cache = cache_after(10, 20, 30)
    cache.adopt(ChannelHistory(NOW, [], 20), after=NOW, last=25, known=MAX_ID)
    assert cache.head == 30


def test_a_new_epoch_starts_with_an_empty_cache() -> None:
    cache = cache_after(10, 20, 30)
    cache.gone = 5
    cache.clear()
    assert state(cache) == ([], UNREAD, 0, 0)
    cache.adopt(ChannelHistory(7, chain(8, prev=7), 8), after=7, last=9, known=0)
    assert state(cache) == ([8], 7, 0, 8)


# -- bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_entries", "max_bytes", "kept", "floor"),
    [
        (3, 3 * SIZE, [10, 20, 30], 5),
        (2, 3 * SIZE, [20, 30], 10),
        (3, 3 * SIZE - 1, [20, 30], 10),
        (2, SIZE, [30], 20),
        (1, 9 * SIZE, [30], 20),
        (3, SIZE - 1, [], 30),
        (0, 0, [], 30),
    ],
)
def test_trimming_drops_the_oldest_until_both_bounds_hold(
    max_entries: int, max_bytes: int, kept: list[int], floor: int
) -> None:
    cache = cache_after(5, 10, 20, 30)
    cache.trim(max_entries, max_bytes)
    assert state(cache) == (kept, floor, 0, 30)
    assert cache.coverage(floor) is Coverage.READY
    assert floor == 5 or cache.coverage(floor - 1) is Coverage.ABSENT


def test_an_empty_cache_has_nothing_to_trim() -> None:
    cache = cache_after(5)
    cache.trim(0, 0)
    assert state(cache) == ([], 5, 0, 5)


# -- all together -------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 3)),
    st.tuples(st.just("cut"), st.integers(1, 3)),
    st.tuples(st.just("trim"), st.integers(0, 5)),
    st.tuples(st.just("ask"), st.one_of(st.just(NOW), st.integers(0, 80))),
    st.tuples(st.just("answer"), st.integers(0, 2)),
)


class Channel:
    """The broker's list of one channel, and a live cache that reads it now and then."""

    def __init__(self) -> None:
        self.published: list[Entry] = []
        self.kept: list[Entry] = []
        self.last = 10
        self.replies: list[tuple[int, int, ChannelHistory]] = []  # requested, position of the read, history
        self.cache = ChannelCache(100)
        self.ask(NOW)
        self.answer(0)

    def publish(self, step: int) -> None:
        self.last += step
        entry = Entry("ab", self.last, self.published[-1].id if self.published else 0, BODY)
        self.published.append(entry)
        self.kept.append(entry)
        assert not self.cache.misses_one_before(entry)
        self.cache.append(entry)

    def cut(self, count: int) -> None:
        del self.kept[:count]

    def trim(self, count: int) -> None:
        self.cache.trim(count, MAX_ID)

    def ask(self, after: int) -> None:
        self.last += 1
        head = self.published[-1].id if self.published else 0
        self.replies.append((after, self.last, channel_history(after, list(self.kept), head, 0)))

    def answer(self, which: int) -> None:
        """A reply may arrive late: later events are in the cache already."""
        if which < len(self.replies):
            after, last, found = self.replies.pop(which)
            self.cache.adopt(found, after=after, last=last, known=MAX_ID)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_a_cache_is_complete_after_its_floor_and_knows_what_is_lost(steps: list[tuple[str, Any]]) -> None:
    channel = Channel()
    for name, argument in steps:
        getattr(channel, name)(argument)
        cache, all_ids, kept_ids = channel.cache, ids(channel.published), ids(channel.kept)
        entry_ids, floor, gone, head = state(cache)
        assert entry_ids == [id for id in all_ids if id > floor]
        assert head == max(all_ids, default=0)
        assert not any(id <= gone for id in kept_ids)
        for at in range(channel.last + 1):
            if cache.coverage(at) is Coverage.LOST:
                assert any(id > at for id in all_ids if id not in kept_ids)
