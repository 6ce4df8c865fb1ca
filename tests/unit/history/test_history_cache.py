"""A history cache with a real broker and a real fetcher; each test decides the order of all steps."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from flask_sse_push.brokers import memory
from flask_sse_push.brokers.base import Echo, LinkMessage, LiveEvent, Subscribed
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.history import checks as checks_module
from flask_sse_push.history import fetcher as fetcher_module
from flask_sse_push.history import link as link_module
from flask_sse_push.history import read_queue
from flask_sse_push.history import trusted_caches as trusted_module
from flask_sse_push.history.channel_cache import Coverage
from flask_sse_push.history.chunk import ChunkCache
from flask_sse_push.history.fetcher import HistoryFetcher, HistoryReply
from flask_sse_push.history.history_cache import Dispatch, HistoryCache
from flask_sse_push.history.position import Gap, Opening, Reset, Snapshot, StartPoint
from flask_sse_push.history.read_queue import ChannelRead
from flask_sse_push.history.recovery_driver import ShardRecovery
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.protocol.cursor import EARLIEST, MAX_ID, Cursor
from flask_sse_push.protocol.entry import Entry, Publication
from tests.support.policies import keeping


class Flaky(MemoryBroker):
    """A memory broker that can be unreachable, or lose its data."""

    reachable = True

    def history(self, *args: object) -> object:  # type: ignore[override]
        if not self.reachable:
            raise BrokerUnavailable("out of reach")
        return super().history(*args)  # type: ignore[arg-type]

    def forget_all(self) -> None:
        """Loses all data, as by FLUSHALL. Subscriptions stay."""
        self._epoch, self._last, self._horizon = f"{self._epoch}x", 0, 0
        self._heads.clear()
        self._lists.clear()


class Bench:
    """A history cache with its link and its fetcher. They do nothing by themselves."""

    def __init__(self, *names: str, size: int = 100, keep_bytes: int = 10**6) -> None:
        self.broker = Flaky(keeping(size, 3600.0))
        self.replies: list[tuple[int, HistoryReply]] = []
        self.fetcher = HistoryFetcher(self.broker, "w", self.replies.append, 5)
        self.history_cache = HistoryCache(self.fetcher, keeping(size, 3600.0), keep_bytes)
        self.link = self.broker.link("w")
        if names:
            self.join(*names)
            self.run()

    def join(self, *names: str) -> None:
        """Counts a stream of these channels, and subscribes them."""
        fresh = [name for name in names if self.history_cache.enter(name)]
        self.link.subscribe(fresh)

    def publish(self, *names: str) -> int:
        return self.broker.publish([Publication(b"data: x\n\n", names)])[0].id

    def messages(self) -> list[LinkMessage]:
        return self.link.read(0)

    def hear(self) -> Dispatch:
        return self.history_cache.take([self.messages()])

    def fetch(self) -> HistoryReply:
        while not self.replies:
            self.fetcher._fetch()
        return self.replies.pop(0)[1]

    def run(self) -> list[Dispatch]:
        """Lets everything happen that can happen now; returns what was dispatched."""
        dispatches = [self.hear()]
        for _ in range(2):
            while self.fetcher.queue:
                dispatches.append(self.history_cache.take([self.fetch(), self.messages()]))
            dispatches.append(self.history_cache.take([self.fetch(), self.messages()]))  # a probe
        return dispatches

    def cut(self) -> Dispatch:
        """The link breaks and loses the messages under way; a new one is there."""
        self.link.close()
        dispatch = self.history_cache.take([None])
        self.link = self.broker.link("w")
        return dispatch

    def reconnect(self) -> list[Dispatch]:
        self.link.subscribe(list(self.history_cache.caches))
        return self.run()

    def known(self, name: str) -> list[int]:
        return [entry.id for entry in self.history_cache.caches[name].entries]

    def begins(self, *names: str) -> bool:
        """Whether a live stream of these channels can begin."""
        return not self.recovery(names, StartPoint()).must_wait()

    def recovery(self, names: tuple[str, ...], start: StartPoint) -> ShardRecovery:
        return ShardRecovery(self.history_cache, names, start)

    def begin(self, recovery: ShardRecovery) -> tuple[Opening, Reset | None]:
        return recovery.begin(self.history_cache.caches, self.snapshot)

    def missed(self, recovery: ShardRecovery) -> list[Entry]:
        """The next missed entries."""
        return recovery.take(self.history_cache.caches, self.snapshot, ChunkCache()).entries

    @property
    def snapshot(self) -> Snapshot:
        assert self.history_cache.snapshot is not None
        return self.history_cache.snapshot

    @property
    def position(self) -> int:
        return self.snapshot.position


def ids(*dispatches: Dispatch) -> list[int]:
    return [entry.id for dispatch in dispatches for _, entry in dispatch.entries]


def follows(bench: Bench, name: str) -> bool:
    """Whether a new event of the channel is dispatched."""
    new = bench.publish(name)
    return ids(*bench.run()) == [new]


# -- joining -------------------------------------------------------------------------------------------------


def test_a_first_channel_is_ready_when_its_history_and_the_echo_have_arrived() -> None:
    bench = Bench()
    bench.publish("a")
    bench.join("a")
    assert not bench.begins("a")
    bench.hear()
    reply = bench.fetch()
    bench.history_cache.take([reply])
    assert not bench.begins("a"), "the link has not reached the position of the reply"
    bench.hear()
    assert bench.begins("a")
    assert bench.position == reply.history.last
    assert follows(bench, "a")


def test_the_echo_may_arrive_before_its_reply() -> None:
    bench = Bench()
    bench.join("a")
    bench.hear()
    reply = bench.fetch()
    bench.hear()
    assert not bench.begins("a")
    bench.history_cache.take([reply])
    assert bench.position == reply.history.last


def test_the_position_covers_events_that_arrived_between_the_first_echo_and_its_reply() -> None:
    bench = Bench()
    bench.join("a")
    bench.hear()
    reply = bench.fetch()
    event = bench.publish("a")
    bench.hear()  # the echo, then the event
    bench.history_cache.take([reply])
    assert bench.known("a") == [event]
    assert bench.snapshot.position == event, "a stream would join its group before the event and never get it"


def test_a_second_stream_of_a_channel_requests_nothing() -> None:
    bench = Bench("a")
    assert not bench.history_cache.enter("a")
    assert bench.begins("a")


@pytest.mark.parametrize(
    "snapshot", ["before subscribing", "before the history", "before the echo", "after it"]
)
def test_an_event_published_while_a_channel_joins_is_known_once(snapshot: str) -> None:
    bench = Bench("other")
    published = []
    if snapshot == "before subscribing":
        published.append(bench.publish("a"))
    recovery = bench.recovery(("a",), StartPoint(str(Cursor(bench.broker._epoch, bench.position))))
    bench.join("a")
    recovery.must_wait()
    bench.hear()
    if snapshot == "before the history":
        published.append(bench.publish("a"))
    reply = bench.fetch()
    if snapshot == "before the echo":
        published.append(bench.publish("a"))
    bench.history_cache.take([bench.messages(), reply])
    if snapshot == "after it":
        published.append(bench.publish("a"))
        bench.hear()
    assert bench.known("a") == published
    assert not recovery.must_wait()
    bench.begin(recovery)
    assert [entry.id for entry in bench.missed(recovery)] == published
    assert follows(bench, "a")


def test_a_channel_that_joins_late_does_not_hold_the_others() -> None:
    bench = Bench("a")
    bench.join("b")
    first = bench.publish("a")
    assert ids(bench.hear()) == [first]


def test_a_channel_that_was_dropped_can_be_entered_again() -> None:
    bench = Bench("other")
    bench.broker.reachable = False
    bench.join("a")
    bench.hear()
    assert not bench.begins("a")
    bench.history_cache.exit("a", now=0.0)
    assert bench.history_cache.forget_idle(0.0) == ["a"]  # its request still waits for the broker
    bench.link.unsubscribe(["a"])
    bench.broker.reachable = True
    bench.history_cache.enter("a")
    old = bench.fetch()  # from before the second SUBSCRIBE
    bench.history_cache.take([old, bench.messages()])
    missed = bench.publish("a")
    assert not bench.begins("a"), "the reply to the old request does not make it live"
    bench.link.subscribe(["a"])
    bench.run()
    recovery = bench.recovery(("a",), StartPoint(str(Cursor(bench.broker._epoch, old.history.last))))
    while recovery.must_wait():
        bench.run()
    bench.begin(recovery)
    assert [entry.id for entry in bench.missed(recovery)] == [missed]
    assert follows(bench, "a")


class Counted(float):
    """A time that counts how often it is compared."""

    compared = 0

    def __gt__(self, other: float) -> bool:
        Counted.compared += 1
        return float(self) > other


def test_of_many_idle_channels_only_those_that_go_and_the_next_one_are_looked_at() -> None:
    bench = Bench()
    names = [f"c{number}" for number in range(10_000)]
    for number, name in enumerate(names):
        bench.history_cache.enter(name)
        bench.history_cache.exit(name, Counted(number))
    for before, gone, compared in ((-1.0, [], 1), (2.0, names[:3], 4), (2.5, [], 1)):
        Counted.compared = 0
        assert bench.history_cache.forget_idle(before) == gone
        assert Counted.compared == compared


def test_a_channel_used_again_is_idle_from_its_last_use_on() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.history_cache.enter(name)
        bench.history_cache.exit(name, 1.0)
    bench.history_cache.enter("a")
    assert bench.history_cache.forget_idle(5.0) == ["b"]
    bench.history_cache.exit("a", 6.0)
    assert bench.history_cache.forget_idle(5.0) == []
    assert bench.history_cache.forget_idle(6.0) == ["a"]


# -- a lost link ---------------------------------------------------------------------------------------------


def test_events_published_while_the_link_was_broken_are_dispatched_once_in_the_order_of_ids() -> None:
    bench = Bench("a", "b", BROADCAST)
    before = bench.publish("a")
    assert ids(bench.hear()) == [before]
    bench.cut()
    missed = [bench.publish(name) for name in ("b", "a", BROADCAST, "a", "b")]
    dispatches = bench.reconnect()
    assert ids(*dispatches) == missed
    assert all(dispatch.lost == {} and not dispatch.new_epoch for dispatch in dispatches)
    assert follows(bench, "a")


def test_while_it_holds_nothing_is_dispatched_and_the_position_stands_still() -> None:
    bench = Bench("a", "b")
    position = bench.position
    bench.cut()
    early = bench.publish("a")
    bench.link.subscribe(["a", "b"])
    late = bench.publish("b")
    assert ids(bench.hear()) == []
    reply = bench.fetch()
    later = bench.publish("a")
    assert bench.position == position
    assert ids(bench.hear()) == []
    assert ids(bench.history_cache.take([reply])) == [early, late, later]
    assert bench.position == later


def test_it_holds_until_all_channels_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("a", "b", "c")
    monkeypatch.setattr(read_queue, "MAX_AT_ONCE", 1)
    bench.cut()
    bench.link.subscribe(["a", "b", "c"])
    published = []
    for _ in range(3):
        published += [bench.publish(name) for name in "cab"]
        assert ids(bench.hear()) == []
        last = bench.fetch()
        if bench.fetcher.queue:
            assert ids(bench.history_cache.take([last])) == []
    assert ids(bench.history_cache.take([bench.messages(), last])) == published


def test_an_event_that_arrived_before_the_link_broke_is_not_dispatched_again() -> None:
    bench = Bench("a")
    first = bench.publish("a")
    messages = bench.messages()
    bench.link.close()
    bench.link = bench.broker.link("w")
    second = bench.publish("a")
    dispatch = bench.history_cache.take([messages, None])
    assert ids(dispatch, *bench.reconnect()) == [first, second]


def test_a_link_that_breaks_again_while_channels_are_read_loses_nothing() -> None:
    bench = Bench("a", "b")
    bench.cut()
    missed = [bench.publish("a"), bench.publish("b")]
    bench.link.subscribe(["a", "b"])
    bench.hear()
    void = bench.fetch()
    bench.cut()
    assert ids(bench.history_cache.take([void])) == []
    missed.append(bench.publish("a"))
    assert ids(*bench.reconnect()) == missed


def test_only_events_that_the_broker_lost_are_reported_as_lost() -> None:
    bench = Bench("a", "b", size=3)
    bench.cut()
    in_a = [bench.publish("a") for _ in range(5)]
    in_b = bench.publish("b")
    dispatches = bench.reconnect()
    assert [list(dispatch.lost) for dispatch in dispatches if dispatch.lost] == [["a"]]
    assert ids(*dispatches) == [*in_a[-3:], in_b]


@pytest.mark.parametrize("later", [0, 2])
def test_an_event_that_the_link_never_brought_is_found_when_all_is_read_again(later: int) -> None:
    """No broker does that. If one did, the streams would get a reset, instead of a silent loss."""
    bench = Bench("a", "b")
    heard = bench.publish("a")
    bench.hear()
    bench.publish("a")
    bench.messages()  # and the worker does not get them
    passed = bench.publish("b")
    bench.hear()
    assert bench.position == passed
    bench.cut()
    published = [bench.publish("a") for _ in range(later)]
    dispatches = bench.reconnect()
    assert ids(*dispatches) == published
    assert [gap for each in dispatches for gap in each.lost.values()] == [Gap("a", heard, passed)]


def test_a_loss_is_reported_once_however_often_the_link_breaks() -> None:
    bench = Bench("a", "b", size=3)
    bench.cut()
    for _ in range(5):
        bench.publish("a")
    bench.link.subscribe(["a"])  # b is not confirmed yet, so the hold lasts
    bench.hear()
    bench.history_cache.take([bench.fetch(), bench.messages()])
    bench.cut()
    for _ in range(5):
        bench.publish("a")
    dispatches = bench.reconnect()
    assert [list(dispatch.lost) for dispatch in dispatches if dispatch.lost] == [["a"]]


def test_a_call_that_failed_with_the_old_link_is_not_taken_for_one_of_the_new() -> None:
    bench = Bench("other")
    bench.join("a")
    bench.hear()
    read = bench.fetcher.queue.take()  # the call is under way when the link breaks
    assert isinstance(read, ChannelRead)
    bench.cut()
    for name, several in read.requests.items():  # and fails: the fetcher queues them again
        for request in several:
            bench.fetcher.submit(name, request)
    early = bench.fetch()  # the new link has not confirmed the channel
    bench.history_cache.take([early, bench.messages()])
    joined = bench.begins("a")
    missed = bench.publish("a")
    dispatched = ids(*bench.reconnect())
    assert not joined or missed in dispatched, "a stream went live on a channel that was not subscribed"


# -- gaps ----------------------------------------------------------------------------------------------------


def without(messages: list[LinkMessage], id: int) -> list[LinkMessage]:
    """The messages without the announcements of one event."""
    return [s for s in messages if not (isinstance(s, LiveEvent) and Entry.parse(s.stored).id == id)]


def test_a_gap_in_the_chain_is_filled_before_anything_is_dispatched() -> None:
    bench = Bench("a", "b")
    gap, shown, other = bench.publish("a"), bench.publish("a"), bench.publish("b")
    assert ids(bench.history_cache.take([without(bench.messages(), gap)])) == []
    assert ids(*bench.run()) == [gap, shown, other]


def test_a_gap_found_too_late_is_reported_as_a_loss() -> None:
    bench = Bench("a", "b")
    gap, other = bench.publish("a"), bench.publish("b")
    assert ids(bench.history_cache.take([without(bench.messages(), gap)])) == [other]
    shown = bench.publish("a")  # its `prev` shows the gap, but the position is above it
    dispatches = bench.run()
    assert shown in ids(*dispatches)
    lost = [name for dispatch in dispatches for name in dispatch.lost]
    assert lost == ["a"] or gap in ids(*dispatches)


def test_events_that_arrive_while_a_short_history_is_read_cause_no_second_pause() -> None:
    """The broker keeps one event. Several came since it was read, and all of them wait in the tail."""
    bench = Bench("a", size=1)
    bench.cut()
    bench.link.subscribe(["a"])
    bench.hear()
    reply = bench.fetch()
    published = [bench.publish("a") for _ in range(5)]
    dispatch = bench.history_cache.take([bench.messages(), reply])
    assert (ids(dispatch), bench.history_cache.paused) == (published, False)


def test_a_gap_in_the_tail_is_filled() -> None:
    bench = Bench("a")
    bench.cut()
    bench.link.subscribe(["a"])
    bench.hear()
    reply = bench.fetch()
    gap, shown = bench.publish("a"), bench.publish("a")
    assert ids(bench.history_cache.take([without(bench.messages(), gap), reply])) == []
    assert ids(*bench.run()) == [gap, shown]


def test_a_message_that_is_no_event_is_ignored() -> None:
    bench = Bench("a")
    new = bench.publish("a")
    junk = [
        LiveEvent("a", stored) for stored in (b"", b"junk", b"e 1 x -\n", b"\xff 1 2 -\n", b"e 1 0 t=x\n")
    ]
    assert ids(bench.history_cache.take([[*junk, *bench.messages(), LiveEvent("nobody's", b"x")]])) == [new]


# -- epochs --------------------------------------------------------------------------------------------------


def test_a_new_epoch_is_reported_before_its_events() -> None:
    bench = Bench("a", "b")
    before = bench.snapshot
    bench.broker.forget_all()
    first = bench.publish("a")
    dispatches = bench.run()
    assert [dispatch.new_epoch for dispatch in dispatches].count(True) == 1
    after = bench.snapshot
    assert after.epoch != before.epoch
    assert first < after.base <= after.position, "the reset stands for all that came before it"
    assert ids(*dispatches) == []
    assert follows(bench, "a")


def test_a_new_epoch_may_have_lower_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("a")
    old = bench.position
    bench.broker.forget_all()
    monkeypatch.setattr("flask_sse_push.brokers.memory.time.time_ns", lambda: 1_000_000_000)
    bench.run()
    assert bench.position < old
    assert follows(bench, "a")


def test_events_between_the_parts_of_a_new_epoch_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("a", "b")
    monkeypatch.setattr(read_queue, "MAX_AT_ONCE", 1)
    bench.broker.forget_all()
    bench.fetcher._fetch()  # a probe: its reply has the epoch
    published: list[int] = []
    dispatches = [bench.history_cache.take([bench.replies.pop()[1], bench.messages()])]
    while bench.fetcher.queue:
        dispatches.append(bench.history_cache.take([bench.fetch(), bench.messages()]))
        published += [bench.publish("a"), bench.publish("b")]
    dispatches += bench.run()
    base = bench.snapshot.base
    assert ids(*dispatches) == [id for id in published if id > base]
    assert [dispatch.new_epoch for dispatch in dispatches].count(True) == 1


def test_an_epoch_lost_before_the_first_reply_leaves_no_stream_waiting() -> None:
    bench = Bench()
    bench.join("a")
    bench.hear()
    void = bench.fetch()
    bench.broker.forget_all()
    bench.broker.probe("w")
    bench.history_cache.take([bench.messages(), void])
    bench.run()
    assert bench.begins("a")
    assert follows(bench, "a")


def test_new_streams_wait_until_the_open_ones_know_of_a_new_epoch() -> None:
    bench = Bench("a", "b")
    announced = bench.history_cache.announced
    bench.broker.forget_all()
    bench.broker.probe("w")
    bench.hear()
    while bench.fetcher.queue and not bench.history_cache.new_epoch:
        bench.history_cache.take([bench.fetch(), bench.messages()])
    if bench.history_cache.new_epoch:
        assert bench.history_cache.announced == announced
        assert not bench.begins("a")
    bench.run()
    assert bench.history_cache.announced == bench.snapshot
    assert bench.begins("a")


# -- void replies ----------------------------------------------------------------------------------------


def test_a_request_whose_reply_became_void_is_repeated() -> None:
    bench = Bench("a")
    first = bench.publish("a")
    bench.hear()
    recovery = bench.recovery(("a",), StartPoint(EARLIEST))
    bench.history_cache.caches["a"].trim(0, 0)
    assert recovery.must_wait()
    void = bench.fetch()
    bench.cut()
    assert ids(bench.history_cache.take([void])) == []
    assert bench.history_cache.caches["a"].coverage(0) is Coverage.ABSENT
    bench.reconnect()
    assert bench.known("a") == [], "the resync reads no further than it must"
    assert recovery.must_wait()
    bench.run()
    assert not recovery.must_wait()
    assert bench.known("a") == [first]


def test_a_channel_confirmed_again_is_read_again() -> None:
    bench = Bench("a", "b")
    messages = bench.messages()
    missed = bench.publish("a")
    lost = bench.messages()
    assert any(isinstance(signal, LiveEvent) for signal in lost)
    assert ids(bench.history_cache.take([[*messages, Subscribed("a")]])) == []
    assert ids(*bench.run()) == [missed]


def test_a_channel_confirmed_twice_for_no_reason_doubles_nothing() -> None:
    bench = Bench("a")
    first = bench.publish("a")
    dispatches = [bench.history_cache.take([[*bench.messages(), Subscribed("a")]])]
    second = bench.publish("a")
    dispatches += bench.run()
    assert ids(*dispatches) == [first, second]
    assert follows(bench, "a")


def test_a_confirmation_of_a_dropped_channel_is_ignored() -> None:
    bench = Bench("a")
    assert bench.history_cache.take([[Subscribed("gone")]]) == Dispatch([], {}, False)


# -- events in several channels ------------------------------------------------------------------------------


def test_the_position_waits_for_the_other_announcements_of_a_shared_event() -> None:
    bench = Bench("a", "b")
    shared = bench.publish("a", "b")
    in_a, in_b = bench.messages()
    assert ids(bench.history_cache.take([[in_a]])) == [shared]
    assert bench.position == shared - 1
    assert bench.snapshot.seen == shared
    assert ids(bench.history_cache.take([[in_b]])) == [shared]
    assert bench.position == shared - 1
    after = bench.publish("b")
    assert ids(bench.hear()) == [after]
    assert bench.position == after


def test_a_stream_that_begins_between_two_announcements_gets_the_event_once() -> None:
    bench = Bench("a", "b")
    start = bench.position
    shared = bench.publish("a", "b")
    in_a, in_b = bench.messages()
    bench.history_cache.take([[in_a]])
    recovery = bench.recovery(("b", "a"), StartPoint(str(Cursor(bench.broker._epoch, start))))
    assert not recovery.must_wait()
    bench.begin(recovery)
    taken = bench.missed(recovery)
    bench.history_cache.take([[in_b]])
    taken += bench.missed(recovery)
    assert [entry.id for entry in taken] == [shared]


def test_a_client_with_the_cursor_of_a_shared_event_is_not_refused() -> None:
    bench = Bench("a", BROADCAST)
    shared = bench.publish("a", "b")
    bench.hear()
    assert bench.position == shared - 1
    recovery = bench.recovery(("a", BROADCAST), StartPoint(str(Cursor(bench.broker._epoch, shared))))
    for _ in range(3):  # a transport tries again and again
        assert recovery.must_wait()
    bench.run()
    assert not recovery.must_wait()
    opening, reset = bench.begin(recovery)
    assert (opening.resumed, reset) == (True, None)


def test_a_shared_event_split_by_a_broken_link_is_dispatched_once_for_each_channel() -> None:
    bench = Bench("a", "b")
    shared = bench.publish("a", "b")
    in_a = bench.messages()[:1]
    dispatches = [bench.history_cache.take([in_a, None])]
    bench.link.close()
    bench.link = bench.broker.link("w")
    dispatches += bench.reconnect()
    pairs = [(cache, entry.id) for dispatch in dispatches for cache, entry in dispatch.entries]
    caches = bench.history_cache.caches
    assert (caches["b"], shared) in pairs
    assert (caches["a"], shared) in pairs
    assert {id for _, id in pairs} == {shared}


# -- positions -----------------------------------------------------------------------------------------------


def test_an_echo_moves_the_position_of_a_quiet_worker() -> None:
    """It does so when the reply is there too: another program may publish to the inbox."""
    bench = Bench("a")
    before, reply = bench.position, bench.fetch()
    assert ids(bench.hear()) == []
    assert bench.position == before
    assert ids(bench.history_cache.take([reply])) == []
    assert bench.position == reply.history.last > before


def test_an_echo_of_the_past_moves_nothing() -> None:
    bench = Bench("a")
    position = bench.position
    bench.history_cache.take([[Echo(bench.broker._epoch, position - 5)]])
    assert bench.position == position


def test_a_cache_is_trimmed_and_reads_back_what_a_cursor_needs() -> None:
    bench = Bench("a", keep_bytes=200)
    start = bench.position
    published = [bench.publish("a") for _ in range(30)]
    bench.hear()
    assert len(bench.known("a")) < 30
    recovery = bench.recovery(("a",), StartPoint(str(Cursor(bench.broker._epoch, start))))
    assert recovery.must_wait()
    bench.run()
    assert not recovery.must_wait()
    bench.begin(recovery)
    taken = bench.missed(recovery)
    assert [entry.id for entry in taken] == published


# -- messages of other programs ------------------------------------------------------------------------------

NOT_EVENTS = [
    b"",
    b"\xff\xfe",
    b"EPOCH 9 0 -",
    b"EPOCH 9 0 -\ndata: x",
    b"EPOCH 9 0 -\ndata: x\n",
    b"EPOCH 9 0 -\ndata: x\n\ndata: y\n\n",
    b"EPOCH 9 0 -\ndata: x\nid: 5\n\n",
    b"EPOCH 9 0 -\nid: 5\ndata: x\n\n",
    b"EPOCH 9 0 -\ndata: x\rid: 5\n\n",
    b"EPOCH 9 0 -\nevent: sse.close\ndata: {}\n\n",
    b"EPOCH 9 0 -\ndata: \xff\n\n",
    b"EPOCH 9 0 -\n\ndata: x\n\n",
    b"EPOCH -9 0 -\ndata: x\n\n",
    b"EPOCH 0 0 -\ndata: x\n\n",
    b"E\rP 9 0 -\ndata: x\n\n",
    b"EPOCH 9 0 m=c\ndata: x\n\n",
    b"EPOCH 9 0 t=x\ndata: x\n\n",
]


@pytest.mark.parametrize("junk", NOT_EVENTS)
def test_a_message_that_is_no_event_harms_its_channel_only(
    junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench("a", "b")
    position = bench.history_cache.snapshot
    stored = junk.replace(b"EPOCH", bench.broker._epoch.encode())
    for count in range(3):
        id = bench.publish("b")
        dispatch = bench.history_cache.take([[LiveEvent("a", stored), *bench.messages()]])
        assert [entry.id for _, entry in dispatch.entries] == [id]
        assert list(dispatch.lost) == ([] if count else ["a"]), "each client is told once"
    assert bench.history_cache.snapshot != position
    id = bench.publish("a")
    assert [entry.id for _, entry in bench.history_cache.take([bench.messages()]).entries] == [id]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ["'a'" in text for text in errors] == [True]


def test_entries_with_lines_that_are_no_data_count_as_lost() -> None:
    bench = Bench()
    bodies = [b"data: 1\n\n", b"data: 2\n\nid: 9\n\n", b"data: 3\n\n"]
    for name in "ab":
        bench.broker.publish([Publication(body, (name,)) for body in (bodies if name == "a" else bodies[:1])])
    for name in "ab":
        bench.history_cache.enter(name, 0)
    bench.link.subscribe(["a", "b"])
    bench.run()
    caches = bench.history_cache.caches
    assert [entry.frame.split(b"\n")[1] for entry in caches["a"].entries] == [b"data: 3"]
    assert caches["a"].coverage(0) is Coverage.LOST
    assert [entry.frame.split(b"\n")[1] for entry in caches["b"].entries] == [b"data: 1"]
    assert caches["b"].coverage(0) is Coverage.READY


def forged(bench: Bench, id: int, channel: str = "a", prev: int = 0, epoch: str = "") -> LiveEvent:
    return LiveEvent(channel, f"{epoch or bench.broker._epoch} {id} {prev} -\ndata: forged\n\n".encode())


@pytest.mark.parametrize("ahead", [10**6, 3600 * 10**6, 10**15, MAX_ID])
def test_an_id_ahead_of_the_clock_neither_comes_through_nor_silences_its_channel(
    ahead: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench("a", "b")
    for _ in range(3):
        id = min(MAX_ID, bench.position + ahead)
        first = bench.history_cache.take([[forged(bench, id)]])
        in_a, in_b = bench.publish("a"), bench.publish("b")
        dispatches = [first, *bench.run()]
        assert sorted(id for each in dispatches for id in ids(each)) == [in_a, in_b]
        assert not any(each.lost or each.new_epoch for each in dispatches)
        assert in_b <= bench.position < in_b + 10**6
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ["ahead of the broker's clock" in text for text in errors] == [True]


def test_a_clock_that_is_set_forward_loses_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("a", "b")
    now = time.time_ns()
    monkeypatch.setattr(memory, "time", SimpleNamespace(time_ns=lambda: now + 3600 * 10**9))
    published = [bench.publish("a"), bench.publish("b"), bench.publish("a")]
    dispatches = bench.run()
    published.append(bench.publish("b"))
    dispatches += bench.run()
    assert [id for each in dispatches for id in ids(each)] == published
    assert not any(each.lost for each in dispatches)


def test_an_event_below_a_forged_id_is_told_as_lost() -> None:
    """An id that is only a moment ahead cannot be told from a right one until the next event comes."""
    bench = Bench("a", "b")
    id = bench.position + 50_000
    assert ids(bench.history_cache.take([[forged(bench, id)]])) == [id]
    real = bench.publish("a")
    assert real < id, "the machine was too slow for this test"
    dispatch = bench.hear()
    assert ids(dispatch) == []
    assert list(dispatch.lost) == ["a"]


def test_an_echo_below_what_was_heard_resets_all_streams() -> None:
    bench = Bench("a", "b")
    bench.history_cache.take([[forged(bench, bench.position + 50_000)]])
    reply = bench.fetch()
    assert reply.history.last < bench.position, "the machine was too slow for this test"
    dispatches = [bench.history_cache.take([bench.messages(), reply]), *bench.run()]
    assert any(each.new_epoch for each in dispatches)
    in_b = bench.publish("b")
    assert ids(bench.hear()) == [in_b]
    assert bench.position == in_b


def test_an_old_message_that_is_sent_again_harms_its_channel_only() -> None:
    bench = Bench("a", "b")
    bench.publish("a")
    again = bench.messages()
    bench.history_cache.take([again])
    bench.publish("b")
    assert bench.hear().lost == {}
    assert bench.history_cache.take([again]) == Dispatch([], {}, False), "it is known already"
    dispatch = bench.history_cache.take([[forged(bench, bench.position - 10, "b")]])
    assert ids(dispatch) == []
    assert "a" not in dispatch.lost
    in_a, in_b = bench.publish("a"), bench.publish("b")
    assert ids(bench.hear()) == [in_a, in_b]


def test_a_message_of_an_unknown_epoch_is_ignored_and_the_broker_is_asked() -> None:
    bench = Bench("a", "b")
    for _ in range(3):
        assert ids(bench.history_cache.take([[forged(bench, bench.position + 5, epoch="other")]])) == []
        in_b = bench.publish("b")
        assert ids(bench.hear()) == [in_b], "the other channels go on"
    requests = bench.fetcher.queue.take()
    assert isinstance(requests, ChannelRead)
    assert {name: len(several) for name, several in requests.requests.items()} == {BROADCAST: 1}
    assert not any(each.lost or each.new_epoch for each in bench.run())
    in_a = bench.publish("a")
    assert ids(bench.hear()) == [in_a]


def test_an_event_without_a_proof_moves_no_position(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that took the forged id as its cursor would miss the events up to this id."""
    bench = Bench("a", "b")
    before = bench.position
    forgery = forged(bench, before + 50_000)._replace(proven=False)
    dispatches = [bench.history_cache.take([[forgery]]) for _ in range(3)]
    assert ids(*dispatches) == []
    assert bench.position == before
    in_a, in_b = bench.publish("a"), bench.publish("b")
    assert ids(bench.hear()) == [in_a, in_b]
    assert ["another program" in record.getMessage() for record in caplog.records] == [True]


def test_an_event_of_an_epoch_that_was_unknown_on_its_way_is_read_again() -> None:
    bench = Bench("a")
    id = bench.publish("a")
    (event,) = bench.messages()
    assert isinstance(event, LiveEvent)
    assert bench.history_cache.take([[event._replace(proven=None)]]) == Dispatch([], {}, False)
    assert ids(*bench.run()) == [id]
    forgery = forged(bench, bench.position + 50_000, epoch="other")._replace(proven=None)
    assert bench.history_cache.take([[forgery]]) == Dispatch([], {}, False)
    assert isinstance(bench.fetcher.queue.take(), ChannelRead), "the broker is asked for its epoch"


def test_an_event_before_the_first_reply_of_its_epoch_is_not_lost() -> None:
    """Its proof cannot be checked, and the reply may be older than the event."""
    bench = Bench()
    bench.history_cache.enter("a", 0)  # a stream wants every event after the position 0
    bench.link.subscribe(["a"])
    bench.hear()
    reply = bench.fetch()
    id = bench.publish("a")
    messages = [
        each._replace(proven=None) if isinstance(each, LiveEvent) else each for each in bench.messages()
    ]
    for items in ([messages], [reply]):
        bench.history_cache.take(items)
    bench.run()
    assert bench.known("a") == [id]


def test_forged_echoes_move_no_position() -> None:
    bench = Bench("a")
    epoch = bench.broker._epoch
    echoes = [(epoch, bench.position + 50_000), (epoch, MAX_ID), (epoch, bench.position + 10**9)]
    for echo in (Echo(*pair) for pair in [*echoes, ("other", 5), (epoch, 1)]):
        before = bench.position
        assert bench.history_cache.take([[echo] * 300]) == Dispatch([], {}, False)
        assert bench.position == before
        bench.run()
        id = bench.publish("a")
        assert ids(bench.hear()) == [id]


# -- events with a time to live ------------------------------------------------------------------------------


class Clocks:
    """The clocks of the broker and of the worker, in seconds from now. A test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = self.worker = 0.0
        start, began = time.time_ns(), time.monotonic()
        monkeypatch.setattr(
            memory,
            "time",
            SimpleNamespace(time_ns=lambda: start + round(self.broker * 1e9), monotonic=lambda: 0),
        )
        worker = SimpleNamespace(monotonic=lambda: began + self.worker)
        for module in (trusted_module, link_module, fetcher_module, checks_module):
            monkeypatch.setattr(module, "time", worker)

    def advance(self, seconds: float) -> None:
        self.broker += seconds
        self.worker += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def replayed(bench: Bench, start: StartPoint, *names: str) -> list[bytes]:
    """The texts of the events that a stream gets when it opens."""
    recovery = bench.recovery(names, start)
    frames: list[bytes] = []
    for _ in range(10):
        step = recovery.next()
        if step is not None:
            frames += [entry.frame for entry in step.chunk.entries]
            if step.is_complete:
                return [frame.split(b"data: ")[1].strip() for frame in frames]
        bench.run()
    raise AssertionError("the stream never gets all events")


def publish_for(bench: Bench, text: bytes, ttl: float | None) -> None:
    bench.broker.publish([Publication(b"data: %b\n\n" % text, ("a",), ttl=ttl)])


@pytest.mark.parametrize("start", [EARLIEST, "cursor", "newest"])
def test_an_event_is_not_replayed_after_its_time_on_a_quiet_broker(clocks: Clocks, start: str) -> None:
    bench = Bench("a")
    cursor = str(bench.broker.probe("w"))
    publish_for(bench, b"for ever", None)
    publish_for(bench, b"for 1 s", 1.0)
    publish_for(bench, b"for 5 s", 5.0)
    bench.hear()
    begin = StartPoint(newest=5) if start == "newest" else StartPoint(cursor if start == "cursor" else start)
    assert replayed(bench, begin, "a") == [b"for ever", b"for 1 s", b"for 5 s"]
    clocks.advance(2.0)  # without a message or a probe
    assert replayed(bench, begin, "a") == [b"for ever", b"for 5 s"]
    clocks.advance(2.99)
    assert replayed(bench, begin, "a") == [b"for ever", b"for 5 s"]
    clocks.advance(0.01)
    assert replayed(bench, begin, "a") == [b"for ever"]


def test_an_event_is_not_replayed_once_the_clock_was_set_forward(clocks: Clocks) -> None:
    bench = Bench("a")
    publish_for(bench, b"for ever", None)
    publish_for(bench, b"for 60 s", 60.0)
    bench.hear()
    assert replayed(bench, StartPoint(EARLIEST), "a") == [b"for ever", b"for 60 s"]
    clocks.broker += 3600  # the worker cannot know this yet
    assert replayed(bench, StartPoint(EARLIEST), "a") == [b"for ever"]


def test_an_event_lives_no_longer_because_the_clock_was_set_back(clocks: Clocks) -> None:
    bench = Bench("a")
    publish_for(bench, b"for 60 s", 60.0)
    bench.run()
    clocks.broker -= 3600
    bench.run()
    publish_for(bench, b"for 10 s", 10.0)
    bench.run()
    assert replayed(bench, StartPoint(EARLIEST), "a") == [b"for 60 s", b"for 10 s"]
    clocks.advance(11)
    assert replayed(bench, StartPoint(EARLIEST), "a") == [b"for 60 s"]
    clocks.advance(50)
    assert replayed(bench, StartPoint(EARLIEST), "a") == []


def test_a_stream_does_not_get_an_expired_event_after_a_broken_link(clocks: Clocks) -> None:
    bench = Bench("a")
    bench.cut()
    publish_for(bench, b"for 1 s", 1.0)
    publish_for(bench, b"for ever", None)
    clocks.advance(2.0)
    dispatches = bench.reconnect()
    frames = [entry.frame for each in dispatches for _, entry in each.entries]
    assert [frame.split(b"data: ")[1].strip() for frame in frames] == [b"for ever"]
    assert not any(each.lost for each in dispatches)


def test_a_stream_that_asks_the_broker_gets_an_event_that_the_worker_has_yet_to_receive() -> None:
    bench = Bench("a")
    before = Cursor(bench.broker._epoch, bench.position)
    streams = [
        bench.recovery(("a",), start._replace(asks_broker=True))
        for start in (StartPoint(str(before)), StartPoint(newest=1), StartPoint())
    ]
    new = bench.publish("a")
    assert [stream.next() for stream in streams] == [None, None, None]
    for stream, expected in zip(streams, ([new], [new], []), strict=True):
        while (step := stream.next()) is None:
            bench.run()
        assert [entry.id for entry in step.chunk.entries] == expected
    assert (streams[2].position or 0) >= new
