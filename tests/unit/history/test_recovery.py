"""What a stream missed, from its cursor to the live position: step by step, and against a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_push.brokers.base import ChannelHistory, channel_history
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.history.channel_cache import NOW, UNREAD, ChannelCache
from flask_sse_push.history.chunk import ChunkCache
from flask_sse_push.history.fetcher import HistoryFetcher
from flask_sse_push.history.history_cache import HistoryCache
from flask_sse_push.history.position import Opening, Reset, Snapshot, StartPoint, reset_of
from flask_sse_push.history.recovery import MAX_CHUNK, MissedEvents
from flask_sse_push.history.recovery_driver import ShardRecovery
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import EARLIEST, LOST, MAX_ID, Cursor
from flask_sse_push.protocol.entry import Entry
from tests.support.policies import keeping

EPOCH = "ab"
SMALL, BIG = b"data: x\n\n", b"data: " + b"x" * 30_000 + b"\n\n"


def at(id: int, epoch: str = EPOCH) -> StartPoint:
    """A client that has seen everything up to `id`."""
    return StartPoint(str(Cursor(epoch, id)))


def snapshot(position: int, seen: int | None = None, epoch: str = EPOCH) -> Snapshot:
    return Snapshot(epoch, position, position if seen is None else seen)


def entries(*ids: int, prev: int = 0, body: bytes = SMALL) -> list[Entry]:
    """One channel's entries, each naming the one before it."""
    return [Entry(EPOCH, id, before, body) for before, id in zip((prev, *ids), ids, strict=False)]


def cache(floor: int, *found: Entry, gone: int = 0) -> ChannelCache:
    """A cache that is complete after `floor`; up to `gone` the broker has nothing."""
    made = ChannelCache(100)
    head = found[-1].id if found else 0
    made.adopt(ChannelHistory(floor, list(found), head), after=floor, last=MAX_ID, known=0)
    made.gone = gone
    return made


def take(missed: MissedEvents, caches: dict[str, ChannelCache], snapshot: Snapshot) -> list[Entry]:
    return missed.take(caches, snapshot, ChunkCache()).entries


def ids(found: list[Entry]) -> list[int]:
    return [entry.id for entry in found]


# -- what must be read first --------------------------------------------------------------------------------


def test_a_live_stream_needs_the_heads_of_its_channels() -> None:
    caches = {"a": ChannelCache(100), "b": cache(50)}
    for missed in (
        MissedEvents(("a", "b"), StartPoint()),
        MissedEvents(("a", "b"), StartPoint("odd")),
    ):
        assert missed.needs(caches, None) == {"a": NOW}
        assert missed.needs(caches, snapshot(90)) == {"a": NOW}


def test_a_cursor_needs_the_channels_that_do_not_reach_back_to_it() -> None:
    caches = {
        "new": ChannelCache(100),
        "far": cache(60),
        "near": cache(50),
        "lost": cache(60, gone=51),
    }
    missed = MissedEvents(("new", "far", "near", "lost"), at(50))
    assert missed.needs(caches, snapshot(90)) == {"new": 50, "far": 50}


def test_before_the_first_reply_every_cursor_counts() -> None:
    assert MissedEvents(("a",), at(50)).needs({"a": ChannelCache(100)}, None) == {"a": 50}


@pytest.mark.parametrize("start", [at(91), at(50, epoch="cd")])
def test_a_cursor_from_elsewhere_needs_no_more_than_a_live_stream(start: StartPoint) -> None:
    caches = {"a": ChannelCache(100), "b": cache(60)}
    assert MissedEvents(("a", "b"), start).needs(caches, snapshot(90)) == {"a": NOW}


@pytest.mark.parametrize("start", [StartPoint(EARLIEST), StartPoint(newest=5), StartPoint("", newest=5)])
def test_for_the_kept_history_all_of_it_is_needed(start: StartPoint) -> None:
    caches = {
        "new": ChannelCache(100),
        "part": cache(60, gone=50),
        "whole": cache(50, gone=50),
        "all": cache(0),
    }
    missed = MissedEvents(tuple(caches), start)
    assert missed.needs(caches, None) == {"new": 0, "part": 0}
    assert missed.needs(caches, snapshot(90)) == {"new": 0, "part": 0}


def test_a_cursor_takes_precedence_over_the_newest_events() -> None:
    missed = MissedEvents(("a",), StartPoint(str(Cursor(EPOCH, 50)), newest=5))
    assert missed.needs({"a": ChannelCache(100)}, snapshot(90)) == {"a": 50}


def test_a_stream_that_recovers_needs_what_was_trimmed_meanwhile() -> None:
    caches = {"a": cache(0, *entries(10, 20, 30)), "b": cache(0)}
    missed = MissedEvents(("a", "b"), at(5))
    missed.begin(caches, snapshot(40))
    assert missed.needs(caches, snapshot(40)) == {}
    caches["a"].trim(1, MAX_ID)
    assert missed.needs(caches, snapshot(40)) == {"a": 5}


def test_a_stream_that_recovers_needs_only_heads_when_the_epoch_changed() -> None:
    caches = {"a": cache(0), "b": cache(0)}
    missed = MissedEvents(("a", "b"), at(5))
    missed.begin(caches, snapshot(40))
    caches["a"].clear()
    assert missed.needs(caches, snapshot(3, epoch="cd")) == {"a": NOW}
    assert missed.needs(caches, None) == {"a": NOW}


def test_a_channel_that_was_reset_needs_nothing_from_before_the_reset() -> None:
    caches = {"a": cache(60, gone=60), "b": cache(0)}
    missed = MissedEvents(("a", "b"), at(5))
    missed.begin(caches, snapshot(90))
    caches["a"].floor = 95
    assert missed.needs(caches, snapshot(99)) == {"a": 90}


# -- clients that are ahead of the worker -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "ahead"),
    [
        (StartPoint(), False),
        (StartPoint("odd"), False),
        (StartPoint(EARLIEST), False),
        (StartPoint(newest=5), False),
        (at(89), False),
        (at(90), False),
        (at(91), True),
        (at(5, epoch="cd"), True),
    ],
)
def test_a_client_is_ahead_when_it_may_know_more_than_the_worker(start: StartPoint, ahead: bool) -> None:
    missed = MissedEvents(("a",), start)
    assert missed.is_ahead(snapshot(90)) is ahead
    assert missed.must_probe(snapshot(90)) is ahead


def test_before_a_stream_has_begun_one_probe_is_enough() -> None:
    missed = MissedEvents(("a",), at(91))
    assert missed.must_probe(snapshot(90))
    probed = missed.start_probe()
    assert probed is not None
    assert missed.start_probe() is None, "one probe is enough"
    assert missed.must_probe(snapshot(90)), "the probe has not returned yet"
    probed.set()
    assert not missed.must_probe(snapshot(90))
    assert missed.is_ahead(snapshot(90))


def test_a_client_that_is_no_longer_ahead_needs_no_probe() -> None:
    missed = MissedEvents(("a",), at(91))
    assert missed.must_probe(snapshot(90))
    assert not missed.must_probe(snapshot(95))
    opening, reset = missed.begin({"a": cache(50)}, snapshot(95))
    assert opening.resumed
    assert reset is None


def test_a_stream_that_got_a_partly_announced_event_probes_each_time() -> None:
    caches = {"a": cache(0, *entries(91))}
    missed = MissedEvents(("a",), StartPoint())
    missed.begin(caches, snapshot(90, 91))
    assert ids(take(missed, caches, snapshot(90, 91))) == [91]
    assert missed.must_probe(snapshot(90, 91))
    assert missed.must_probe(snapshot(90, 91))
    assert not missed.must_probe(snapshot(91))


def test_a_stream_that_recovers_does_not_wait_until_another_epoch_reaches_its_id() -> None:
    caches = {"a": cache(0)}
    missed = MissedEvents(("a",), at(50))
    missed.begin(caches, snapshot(60))
    assert missed.is_ahead(snapshot(3, epoch="cd"))
    assert not missed.must_probe(snapshot(3, epoch="cd"))


# -- how a stream begins ------------------------------------------------------------------------------------


def test_a_stream_that_has_not_begun_has_no_position() -> None:
    assert MissedEvents(("a",), at(5)).position is None


def test_a_live_stream_begins_at_the_workers_position() -> None:
    caches = {"a": cache(0, *entries(10, 20))}
    missed = MissedEvents(("a",), StartPoint())
    assert missed.begin(caches, snapshot(90)) == (Opening("ab-2i", False), None)
    assert missed.position == 90
    assert take(missed, caches, snapshot(90)) == []


@pytest.mark.parametrize(
    ("start", "floor", "seen", "begins"),
    [
        (StartPoint(), 50, 90, True),
        (StartPoint(), 90, 90, True),
        (StartPoint(), 91, 90, False),
        (StartPoint(), UNREAD, 90, False),
        (StartPoint(), 50, 91, False),
        (StartPoint(newest=0), 50, 90, True),
        (at(90), 50, 90, False),
        (StartPoint("odd"), 50, 90, False),
    ],
)
def test_a_live_stream_begins_without_a_look_where_it_cannot_have_missed_anything(
    start: StartPoint, floor: int, seen: int, begins: bool
) -> None:
    caches = {"a": cache(50), "b": cache(50)}
    caches["b"].floor = floor
    now = snapshot(90, seen)
    missed, other = MissedEvents(("a", "b"), start), MissedEvents(("a", "b"), start)
    opening = missed.begin_live(caches, now)
    assert (opening is not None, missed.position is not None, missed.has_all_of(now)) == (begins,) * 3
    if begins:
        assert other.begin(caches, now) == (opening, None)
        assert take(other, caches, now) == []
        assert (other.position, other.has_all_of(now)) == (missed.position, True)


def test_a_cursor_that_is_complete_resumes_where_it_was() -> None:
    caches = {"a": cache(5, *entries(10, 30)), "b": cache(10, *entries(20))}
    missed = MissedEvents(("a", "b"), at(10))
    assert missed.begin(caches, snapshot(90)) == (Opening(str(Cursor(EPOCH, 10)), True), None)
    assert ids(take(missed, caches, snapshot(90))) == [20, 30]
    assert missed.position == 30
    assert take(missed, caches, snapshot(90)) == []


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (StartPoint("odd"), "cursor"),
        (StartPoint("?"), "cursor"),
        (StartPoint(LOST), "cursor"),
        (StartPoint("ab-01"), "cursor"),
        (at(91), "cursor"),
        (at(MAX_ID), "cursor"),
        (at(5, epoch="cd"), "epoch"),
        (at(91, epoch="cd"), "epoch"),
    ],
)
def test_a_cursor_that_means_nothing_here_resets_all_channels(start: StartPoint, reason: str) -> None:
    caches = {"a": cache(0, *entries(10)), "b": cache(0), BROADCAST: cache(0)}
    missed = MissedEvents(("a", "b", BROADCAST), start)
    opening, reset = missed.begin(caches, snapshot(90))
    assert opening == Opening(LOST, False)
    assert reset == Reset(["a", "b"], reason, "ab-2i")
    assert missed.position == 90
    assert take(missed, caches, snapshot(90)) == []


def test_when_all_channels_lost_events_the_stream_goes_on_from_the_position() -> None:
    caches = {"a": cache(20, *entries(30, prev=20), gone=20), "b": cache(40, gone=40)}
    missed = MissedEvents(("a", "b"), at(10))
    opening, reset = missed.begin(caches, snapshot(90))
    assert opening == Opening(LOST, False)
    assert reset == Reset(["a", "b"], "history", "ab-2i")
    assert take(missed, caches, snapshot(90)) == []


def test_when_some_channels_lost_events_the_others_recover() -> None:
    caches = {"a": cache(20, *entries(30, 70, prev=20), gone=20), "b": cache(0, *entries(5, 50))}
    missed = MissedEvents(("a", "b"), at(10))
    opening, reset = missed.begin(caches, snapshot(60))
    assert opening == Opening("ab-a", False)
    assert reset == Reset(["a"], "history", None)
    assert ids(take(missed, caches, snapshot(80))) == [50, 70]


@pytest.mark.parametrize(("channels", "served"), [(("a",), [61]), (("a", "b"), [50, 61])])
def test_a_partly_announced_event_of_a_reset_channel_is_sent(
    channels: tuple[str, ...], served: list[int]
) -> None:
    caches = {"a": cache(20, *entries(30, 61, prev=20), gone=20), "b": cache(0, *entries(50))}
    missed = MissedEvents(channels, at(10))
    _, reset = missed.begin(caches, snapshot(60, 61))
    assert reset is not None
    assert reset.channels == ["a"]
    assert ids(take(missed, caches, snapshot(60, 61))) == served


def test_all_kept_history_begins_with_the_oldest_entry() -> None:
    caches = {"a": cache(20, *entries(30, 50, prev=20), gone=20), "b": cache(0, *entries(40))}
    missed = MissedEvents(("a", "b"), StartPoint(EARLIEST))
    assert missed.begin(caches, snapshot(90)) == (Opening(EARLIEST, False), None)
    assert ids(take(missed, caches, snapshot(90))) == [30, 40, 50]


def test_all_kept_history_takes_nothing_from_below_a_channels_floor() -> None:
    half = ChannelCache(100)
    half.entries, half.floor, half.gone = entries(10, 30), 20, 20
    missed = MissedEvents(("a",), StartPoint(EARLIEST))
    missed.begin({"a": half}, snapshot(90))
    assert ids(take(missed, {"a": half}, snapshot(90))) == [30]


@pytest.mark.parametrize(
    ("newest", "cursor", "served"),
    [
        (0, "ab-2i", []),
        (1, str(Cursor(EPOCH, 40)), [50]),
        (2, str(Cursor(EPOCH, 30)), [40, 50]),
        (3, EARLIEST, [30, 40, 50]),
        (4, EARLIEST, [30, 40, 50]),
    ],
)
def test_the_newest_events_are_counted_over_all_channels(newest: int, cursor: str, served: list[int]) -> None:
    caches = {"a": cache(20, *entries(30, 50, prev=20), gone=20), "b": cache(0, *entries(40, 50))}
    missed = MissedEvents(("a", "b"), StartPoint(newest=newest))
    assert missed.begin(caches, snapshot(90)) == (Opening(cursor, False), None)
    assert ids(take(missed, caches, snapshot(90))) == served


# -- resets during recovery -------------------------------------------------------------------------------


def test_a_stream_that_is_complete_is_not_reset() -> None:
    caches = {"a": cache(0)}
    missed = MissedEvents(("a",), at(5))
    missed.begin(caches, snapshot(60))
    assert missed.reset(caches, snapshot(60)) is None


def test_a_new_epoch_resets_all_channels_and_goes_on_from_its_position() -> None:
    caches = {"a": cache(20, gone=20), "b": cache(0)}
    missed = MissedEvents(("a", "b"), at(10))
    missed.begin(caches, snapshot(60))
    for each in caches.values():
        each.clear()
        each.adopt(ChannelHistory(3, entries(4), 4), after=3, last=5, known=0)
    later = snapshot(3, 4, epoch="cd")
    assert missed.reset(caches, later) == Reset(["a", "b"], "epoch", "cd-3")
    assert missed.reset(caches, later) is None
    assert ids(take(missed, caches, later)) == [4]


def test_a_channel_that_falls_behind_while_it_recovers_is_reset_once() -> None:
    caches = {"a": cache(0, *entries(10, 20)), "b": cache(0, *entries(30, body=BIG))}
    missed = MissedEvents(("a", "b"), at(5))
    missed.begin(caches, snapshot(40))
    caches["a"].floor = caches["a"].gone = 20
    assert missed.reset(caches, snapshot(50)) == Reset(["a"], "history", None)
    assert missed.reset(caches, snapshot(50)) is None
    assert ids(take(missed, caches, snapshot(50))) == [30]


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        (["a", "b", "*"], ["a", "b"]),
        (["*"], ["*"]),
        (["a", "*"], ["a", "*"]),
    ],
)
def test_lost_broadcasts_are_a_star_unless_all_channels_are_named(lost: list[str], named: list[str]) -> None:
    assert reset_of(lost, ("a", "b", BROADCAST), "why", None) == Reset(named, "why", None)


# -- chunks -------------------------------------------------------------------------------------------------


def test_missed_events_come_in_chunks_of_a_bounded_size() -> None:
    caches = {"a": cache(0, *entries(1, 2, 3, 4, 5, body=BIG))}
    missed = MissedEvents(("a",), at(0))
    missed.begin(caches, snapshot(9))
    chunks = [ids(take(missed, caches, snapshot(9))) for _ in range(4)]
    assert chunks == [[1, 2], [3, 4], [5], []]


def test_an_event_bigger_than_a_chunk_comes_alone() -> None:
    huge = Entry(EPOCH, 2, 1, b"data: " + b"x" * MAX_CHUNK + b"\n\n")
    caches = {"a": cache(0, *entries(1), huge, *entries(3, prev=2))}
    missed = MissedEvents(("a",), at(0))
    missed.begin(caches, snapshot(9))
    assert [ids(take(missed, caches, snapshot(9))) for _ in range(4)] == [[1], [2], [3], []]


def test_an_event_in_several_channels_comes_once() -> None:
    caches = {"a": cache(0, *entries(1, 2)), "b": cache(0, *entries(2, 3))}
    missed = MissedEvents(("a", "b"), at(0))
    missed.begin(caches, snapshot(9))
    assert ids(take(missed, caches, snapshot(9))) == [1, 2, 3]


def test_streams_that_missed_the_same_share_a_chunk() -> None:
    caches = {"a": cache(0, *entries(1, 2, 3, 4, 5, body=BIG)), "b": cache(0, *entries(6))}
    chunk_cache = ChunkCache()
    several = [
        MissedEvents(("a",), at(0)),
        MissedEvents(("a",), at(0)),
        MissedEvents(("a",), at(1)),
        MissedEvents(("a", "b"), at(1)),
    ]
    taken = []
    for missed in several:
        missed.begin(caches, snapshot(9))
        taken.append(missed.take(caches, snapshot(9), chunk_cache))
    assert taken[0] is taken[1]
    assert [ids(chunk.entries) for chunk in taken] == [[1, 2], [1, 2], [2, 3], [2, 3]]
    assert taken[2] is not taken[3]
    rest = [ids(take(missed, caches, snapshot(9))) for missed in several]
    assert rest == [[3, 4], [3, 4], [4, 5], [4, 5, 6]]
    assert [ids(several[0].take(caches, snapshot(9), chunk_cache).entries) for _ in range(2)] == [
        [5],
        [],
    ]
    assert [missed.has_all_of(snapshot(9)) for missed in several] == [True, False, True, True]


def expiring(id: int, expires: int) -> Entry:
    return Entry(EPOCH, id, 0, SMALL, expires=expires)


def test_an_expired_event_is_not_sent() -> None:
    caches = {"a": cache(0, expiring(1, 50), expiring(2, 51), expiring(3, 0), expiring(4, 49))}
    missed = MissedEvents(("a",), at(0))
    missed.begin(caches, snapshot(50))
    assert ids(take(missed, caches, snapshot(50))) == [2, 3]
    assert take(missed, caches, snapshot(50)) == []
    assert missed.position == 4


# -- waiting ------------------------------------------------------------------------------------------------


def test_a_wait_ends_when_a_request_was_answered_and_can_be_repeated() -> None:
    fetcher = HistoryFetcher(MemoryBroker(keeping(10, 60.0)), "w", lambda reply: None, 5)
    missed = ShardRecovery(HistoryCache(fetcher, keeping(10, 60.0), 1000), ("a",), StartPoint())
    assert missed.wait(0) is False
    assert missed.wait(-1) is False
    missed.waiter().set()
    assert missed.wait(0) is True
    assert missed.wait(0) is False


# -- against a model ----------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", BROADCAST)
FIRST = 100  # the position at which the histories begin

_channel = st.integers(0, len(NAMES) - 1)
_publish = st.tuples(
    st.just("publish"),
    st.sets(_channel, min_size=1, max_size=3),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
_cut = st.tuples(st.just("cut"), _channel, st.integers(1, 20))
_trim = st.tuples(st.just("trim"), _channel, st.integers(0, 4))
_read = st.tuples(st.just("read"), _channel, st.one_of(st.just(NOW), st.integers(FIRST - 5, FIRST + 80)))
_forget = st.tuples(st.just("forget"), st.integers(0, 40))
STEPS = st.lists(st.one_of(_publish, _publish, _publish, _cut, _trim, _read), max_size=40)
FORGETFUL = st.lists(st.one_of(_publish, _publish, _publish, _cut, _trim, _read, _forget), max_size=40)
ASKED = st.lists(st.sampled_from(NAMES[:-1]), unique=True).map(lambda names: (*names, BROADCAST))


class World:
    """A broker's lists and one worker's caches of them."""

    def __init__(self, steps: list[tuple[Any, ...]]) -> None:
        self.last = FIRST
        self.horizon = 0
        self.published: dict[str, list[Entry]] = {name: [] for name in NAMES}
        self.kept: dict[str, list[Entry]] = {name: [] for name in NAMES}
        self.heads: dict[str, int] = {}
        self.caches = {name: ChannelCache(1000) for name in NAMES}
        self.run(steps)

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def snapshot(self) -> Snapshot:
        return Snapshot(EPOCH, self.last, self.last)

    def publish(self, channels: set[int], step: int, big: bool, expires: bool) -> None:
        self.last += step
        until = self.last + 10 if expires else 0
        for name in (NAMES[at] for at in channels):
            body = BIG if big else SMALL
            entry = Entry(
                EPOCH,
                self.last,
                self.heads.get(name, -self.horizon),
                body,
                frozenset(),
                until,
                len(channels) > 1,
            )
            self.published[name].append(entry)
            self.kept[name].append(entry)
            self.heads[name] = self.last
            if self.caches[name].floor != UNREAD:
                assert not self.caches[name].misses_one_before(entry)
                self.caches[name].append(entry)

    def cut(self, channel: int, count: int) -> None:
        """The broker's bound, or all of a list that was not used for its time to live."""
        del self.kept[NAMES[channel]][:count]

    def trim(self, channel: int, count: int) -> None:
        """The worker's bound."""
        if self.caches[NAMES[channel]].floor != UNREAD:
            self.caches[NAMES[channel]].trim(count, MAX_ID)

    def forget(self, age: int) -> None:
        """Channels quiet for too long leave the broker's record."""
        self.horizon = max(self.horizon, self.last - age)
        for name, head in list(self.heads.items()):
            if head <= self.horizon:
                del self.heads[name]
                self.kept[name].clear()

    def read(self, channel: int, after: int) -> None:
        self.answer(NAMES[channel], after)

    def answer(self, name: str, after: int) -> None:
        self.last += 1  # a reading takes a position
        kept = self.kept[name]
        older = [entry for entry in kept if entry.id <= after][-1:]
        newer = [entry for entry in kept if entry.id > after]
        found = channel_history(after, older + newer, self.heads.get(name, 0), self.horizon)
        if self.caches[name].floor == UNREAD:
            self.caches[name].adopt(found, after=after, last=self.last, known=0)
        else:
            self.caches[name].add_older(found, after=after, last=self.last)

    def settle(self, missed: MissedEvents) -> None:
        """Reads all that is needed, as the worker does; a second round needs nothing."""
        for name, after in missed.needs(self.caches, self.snapshot()).items():
            self.answer(name, after)
        assert missed.needs(self.caches, self.snapshot()) == {}

    def is_complete(self, name: str, after: int) -> bool:
        """Whether the worker, or else the broker, has every event after the position.

        Not the two together: the worker's floor alone does not tell what stood before it.
        """
        missing = set(ids(self.published[name])) - set(ids(self.kept[name]))
        return self.caches[name].floor <= after or all(id <= after for id in missing)

    def assert_reset_is_right(self, name: str, after: int, *, was_reset: bool) -> None:
        if not self.is_complete(name, after):
            assert was_reset, f"{name} lost an event after {after} and was not reset"
        # A position older than the broker's record of quiet channels may be reset without need.
        elif after >= self.horizon:
            assert not was_reset, f"{name} lost nothing after {after} and was reset"


def names_of(reset: Reset | None, channels: tuple[str, ...]) -> set[str]:
    """The channels a reset means: with a cursor all of them."""
    if reset is None:
        return set()
    return set(channels) if reset.cursor else set(reset.channels)


class Client:
    """One stream that recovers, and the model of what it is entitled to."""

    def __init__(self, world: World, channels: tuple[str, ...], start: int) -> None:
        self.world = world
        self.channels = channels
        self.missed = MissedEvents(channels, at(start))
        self.served: list[int] = []
        self.after = dict.fromkeys(channels, start)
        self.skipped: dict[str, list[tuple[int, int]]] = {name: [] for name in channels}
        self.start = start

    def begin(self) -> None:
        self.world.settle(self.missed)
        opening, reset = self.missed.begin(self.world.caches, self.world.snapshot())
        self._note(reset, self.start)
        lost = names_of(reset, self.channels)
        assert opening.resumed is (reset is None)
        assert opening.cursor == (LOST if lost == set(self.channels) else str(Cursor(EPOCH, self.start)))

    def step(self) -> bool:
        """Takes one chunk; returns whether there was one."""
        self.world.settle(self.missed)
        at = (
            self.missed.position
        )  # beyond what was served, when that was followed by something that has expired
        assert at is not None
        self._note(self.missed.reset(self.world.caches, self.world.snapshot()), at)
        chunk = take(self.missed, self.world.caches, self.world.snapshot())
        assert len(chunk) == 1 or sum(len(entry.frame) for entry in chunk) <= MAX_CHUNK
        self.served += ids(chunk)
        return bool(chunk)

    def _note(self, reset: Reset | None, at: int) -> None:
        lost = names_of(reset, self.channels)
        for name in self.channels:
            done = max(self.after[name], at)
            self.world.assert_reset_is_right(name, done, was_reset=name in lost)
            if name in lost:
                self.skipped[name].append((done, self.world.last))
                self.after[name] = self.world.last

    def assert_served_what_it_was_entitled_to(self) -> None:
        entitled = {
            entry.id: entry
            for name in self.channels
            for entry in self.world.published[name]
            if entry.id > self.start and not any(low < entry.id <= high for low, high in self.skipped[name])
        }
        now = self.world.last
        lasting = {id for id, entry in entitled.items() if not 0 < entry.expires <= now}
        assert self.served == sorted(set(self.served))
        assert lasting <= set(self.served) <= set(entitled)


@pytest.mark.parametrize("steps", [STEPS, FORGETFUL], ids=["all channels known", "quiet channels forgotten"])
def test_a_stream_gets_exactly_what_it_missed_or_a_reset(
    steps: st.SearchStrategy[list[tuple[Any, ...]]],
) -> None:
    @settings(max_examples=400, deadline=None)
    @given(steps, ASKED, st.floats(0, 1))
    def check(done: list[tuple[Any, ...]], channels: tuple[str, ...], where: float) -> None:
        world = World(done)
        client = Client(world, channels, FIRST - 5 + round(where * (world.last - FIRST + 5)))
        client.begin()
        while client.step():
            pass
        client.assert_served_what_it_was_entitled_to()

    check()


@pytest.mark.parametrize("steps", [STEPS, FORGETFUL], ids=["all channels known", "quiet channels forgotten"])
def test_the_same_holds_while_events_come_and_go_between_the_chunks(
    steps: st.SearchStrategy[list[tuple[Any, ...]]],
) -> None:
    @settings(max_examples=300, deadline=None)
    @given(steps, ASKED, st.floats(0, 1), st.lists(steps, max_size=6))
    def check(
        done: list[tuple[Any, ...]],
        channels: tuple[str, ...],
        where: float,
        meanwhile: list[list[tuple[Any, ...]]],
    ) -> None:
        world = World(done)
        client = Client(world, channels, FIRST - 5 + round(where * (world.last - FIRST + 5)))
        client.begin()
        for more in meanwhile:
            client.step()
            world.run(more)
        while client.step():
            pass
        client.assert_served_what_it_was_entitled_to()

    check()


@settings(max_examples=200, deadline=None)
@given(STEPS, ASKED, st.one_of(st.none(), st.integers(0, 12)))
def test_all_kept_history_is_sent_or_its_newest_events(
    done: list[tuple[Any, ...]], channels: tuple[str, ...], newest: int | None
) -> None:
    world = World([step for step in done if step[0] != "publish" or not step[-1]])
    missed = MissedEvents(channels, StartPoint(EARLIEST) if newest is None else StartPoint(newest=newest))
    world.settle(missed)
    opening, reset = missed.begin(world.caches, world.snapshot())
    assert reset is None
    assert not opening.resumed
    served: list[int] = []
    while chunk := take(missed, world.caches, world.snapshot()):
        served += ids(chunk)
    # The worker may still have what the broker has let go meanwhile.
    have = {id for name in channels for id in ids(world.caches[name].entries)}
    kept = {id for name in channels for id in ids(world.kept[name])}
    assert newest == 0 or kept <= have, "without events to send, nothing need be read"
    assert served == sorted(have)[-newest if newest else 0 :] if newest != 0 else served == []


def test_a_stream_that_begins_below_the_floor_of_a_channel_is_not_complete() -> None:
    """While a worker holds, its position stands still, and new channels are read at a later position."""
    for start in (StartPoint(), StartPoint("odd")):
        missed = MissedEvents(("a", "b"), start)
        caches = {"a": cache(50), "b": cache(60, gone=60)}
        missed.begin(caches, snapshot(55))
        assert take(missed, caches, snapshot(55)) == []
        assert not missed.has_all_of(snapshot(55))
        reset = missed.reset(caches, snapshot(55))
        assert reset is not None
        assert reset.channels == ["b"]
