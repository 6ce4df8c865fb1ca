"""The counts of every broker, which expire with the worker that reported them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from flask_sse_push.auth import limits
from flask_sse_push.auth.limits import Limits
from flask_sse_push.brokers.base import Broker
from flask_sse_push.brokers.counts import MAX_COUNTS, CountChange, CountKey, Counts, ReportReply
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.errors import BrokerUnavailable, Refused
from flask_sse_push.hub.drain import open_streams
from flask_sse_push.presence import worker_counts
from flask_sse_push.presence.worker_counts import Reservation, WorkerCounts
from tests.support.deadline import eventually, stretched

ANN = CountKey("user", "ann")
BOB = CountKey("user", "bob\nthe second ü")
HERE = CountKey("address", "::1")


@pytest.fixture
def counts(broker: Broker) -> Counts:
    return broker.counts


def totals(counts: Counts, *keys: CountKey) -> list[int]:
    return counts.totals(keys or (ANN, BOB, HERE))


# -- reports -------------------------------------------------------------------------------------------------


def test_totals_are_sums_over_the_workers(counts: Counts) -> None:
    assert counts.report("w1", 1, {ANN: 2, HERE: 2}, 10) == ReportReply(
        True, [CountChange(ANN, 0, 2), CountChange(HERE, 0, 2)], []
    )
    assert counts.report("w2", 1, {ANN: 1, BOB: 1}, 10).changes == [
        CountChange(ANN, 2, 3),
        CountChange(BOB, 0, 1),
    ]
    assert totals(counts) == [3, 1, 2]
    assert counts.report("w1", 2, {ANN: 0}, 10).changes == [CountChange(ANN, 3, 1)]
    assert totals(counts) == [1, 1, 2]
    assert sorted(counts.workers()) == ["w1", "w2"]


def test_a_report_sent_twice_counts_once_and_gets_the_same_reply(counts: Counts) -> None:
    counts.report("w2", 1, {ANN: 5}, 10)
    first = counts.report("w1", 1, {ANN: 1, BOB: 1}, 10)
    counts.report("w2", 2, {ANN: 6}, 10)
    assert counts.report("w1", 1, {ANN: 1, BOB: 1}, 10) == first
    assert totals(counts) == [7, 1, 0]


def test_a_report_that_continues_an_unknown_one_changes_nothing(counts: Counts) -> None:
    assert counts.report("w1", 7, {ANN: 1}, 10).known is False
    assert totals(counts) == [0, 0, 0]
    assert counts.workers() == []


def test_names_with_a_count_are_listed_and_counted(counts: Counts) -> None:
    counts.report("w1", 1, {CountKey("t", str(n)): 1 for n in range(300)}, 10)
    assert counts.size("t") == 300
    assert len(set(counts.names("t", 1000))) == 300
    assert len(counts.names("t", 7)) == 7
    assert counts.names("t", 0) == []
    counts.report("w1", 2, {CountKey("t", str(n)): 0 for n in range(1, 300)}, 10)
    assert counts.size("t") == 1
    assert counts.names("t", 1000) == ["0"]
    assert counts.size("nothing") == 0


# -- killed workers ------------------------------------------------------------------------------------------


def test_a_worker_whose_lease_expired_is_reaped_by_another(counts: Counts) -> None:
    counts.report("dead", 1, {ANN: 2, BOB: 1}, 1.0)
    counts.report("w1", 1, {ANN: 1}, 10)
    eventually(lambda: counts.workers() == ["w1"], 2)
    assert counts.report("w1", 2, {}, 10).expired == ["dead"]
    changes, more = counts.reap("dead")
    assert sorted(changes) == [CountChange(ANN, 3, 1), CountChange(BOB, 1, 0)]
    assert not more
    assert totals(counts) == [1, 0, 0]
    assert counts.report("w1", 3, {}, 10).expired == []
    assert counts.reap("dead") == ([], False)


def test_a_worker_with_many_counts_is_reaped_in_parts(counts: Counts) -> None:
    many = {CountKey("t", str(n)): 1 for n in range(2 * MAX_COUNTS)}
    keys = list(many)
    counts.report("dead", 1, dict.fromkeys(keys[:MAX_COUNTS], 1), 10)
    counts.report("dead", 2, dict.fromkeys(keys[MAX_COUNTS:], 1), 0.5)
    eventually(lambda: counts.workers() == [], 2)
    seen: list[CountChange] = []
    more = True
    while more:
        changes, more = counts.reap("dead")
        assert len(changes) <= MAX_COUNTS
        seen += changes
    assert {change.key for change in seen} == set(keys)
    assert len(seen) == len(keys)
    assert counts.size("t") == 0


def test_a_living_worker_cannot_be_reaped(counts: Counts) -> None:
    counts.report("w1", 1, {ANN: 1}, 10)
    assert counts.reap("w1") == ([], False)
    assert totals(counts, ANN) == [1]


def test_a_worker_that_was_reaped_must_start_over(counts: Counts) -> None:
    counts.report("w1", 1, {ANN: 1}, 0.01)
    eventually(lambda: counts.workers() == [], 2)
    counts.reap("w1")
    assert counts.report("w1", 2, {ANN: 2}, 10).known is False
    assert totals(counts, ANN) == [0]


def test_a_worker_without_counts_can_retire(counts: Counts) -> None:
    counts.report("w1", 1, {ANN: 1}, 10)
    counts.retire("w1")
    assert counts.workers() == ["w1"]
    counts.report("w1", 2, {ANN: 0}, 10)
    counts.retire("w1")
    assert counts.workers() == []


def test_nothing_is_left_when_all_have_gone(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    broker = connect_broker(Settings(broker_url=redis_url, prefix=prefix))
    broker.counts.report("w1", 1, {ANN: 1, HERE: 1}, 10)
    broker.counts.report("w1", 2, {ANN: 0, HERE: 0}, 10)
    broker.counts.retire("w1")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("{" + prefix + ":0}:*") == []
    broker.close()


# -- replies -------------------------------------------------------------------------------------------------


def test_replies_to_a_query_are_collected(counts: Counts) -> None:
    assert counts.replies("t", 0) == []
    counts.add_replies("t", [b"a", b"\xff\n"])
    counts.add_replies("other", [b"x"])
    counts.add_replies("t", [b"c"])
    assert counts.replies("t", 0) == [b"a", b"\xff\n", b"c"]
    assert counts.replies("t", 2) == [b"c"]


# -- a worker's counts ---------------------------------------------------------------------------------------


MakeWorkerCounts = Callable[..., WorkerCounts]


@pytest.fixture
def make_worker_counts(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorkerCounts]:
    monkeypatch.setattr(worker_counts, "LEASE", 1.5)
    monkeypatch.setattr(worker_counts, "RENEW", 0.2)
    monkeypatch.setattr(worker_counts, "GATHER", 0.02)
    with ExitStack() as stack:

        def make(streams: int = 0) -> WorkerCounts:
            one = WorkerCounts(broker.counts, lambda: streams)
            stack.callback(one.close)
            return one

        yield make


def test_reservations_made_at_once_get_different_totals(make_worker_counts: MakeWorkerCounts) -> None:
    workers_counts = [make_worker_counts() for _ in range(3)]
    got: list[int] = []

    def take(one: WorkerCounts) -> None:
        got.append(one.reserve([ANN, HERE]).totals(5)[ANN])

    threads = [threading.Thread(target=take, args=(workers_counts[n % 3],)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 31))


def test_a_lease_gets_its_totals_at_once_and_is_released_once(
    make_worker_counts: MakeWorkerCounts, counts: Counts
) -> None:
    one = make_worker_counts()
    first = one.reserve([ANN])
    assert first.totals(5) == {ANN: 1}
    began = time.monotonic()
    second = one.reserve([ANN])
    assert second.totals(5) == {ANN: 2}
    assert time.monotonic() - began < stretched(0.1) + 0.5
    for _ in range(2):
        second.release()
    eventually(lambda: totals(counts, ANN) == [1])
    first.release()
    eventually(lambda: totals(counts, ANN) == [0])
    eventually(lambda: counts.workers() == [])


def test_a_process_that_stops_waits_until_its_counts_are_reported(
    make_worker_counts: MakeWorkerCounts, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_counts, "GATHER", 1.0)
    one = make_worker_counts()
    reservation = one.reserve([ANN])
    reservation.totals(5)
    reservation.release()
    assert any(count() for count in open_streams)
    eventually(lambda: not any(count() for count in open_streams))
    assert totals(counts, ANN) == [0]
    one.close()
    assert one.unreported not in open_streams


def test_a_thousand_changes_go_in_a_few_calls(
    make_worker_counts: MakeWorkerCounts, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_counts, "GATHER", 60)  # until somebody asks
    one = make_worker_counts()
    reservations = [one.reserve([CountKey("user", str(n)), HERE]) for n in range(1000)]
    assert reservations[-1].totals(5) == {CountKey("user", "999"): 1, HERE: 1000}
    assert totals(counts, HERE) == [1000]
    assert one._serial == 6  # 1001 keys, 200 in each


def test_a_worker_with_streams_is_listed_and_the_counts_of_a_killed_one_go(
    make_worker_counts: MakeWorkerCounts, counts: Counts
) -> None:
    alive = make_worker_counts(1)
    alive.wake()
    counts.report("killed", 1, {ANN: 3}, 2.0)
    changes: list[CountChange] = []
    alive.listen(changes.extend)
    eventually(lambda: sorted(counts.workers()) == sorted(["killed", alive.name]))
    eventually(lambda: totals(counts, ANN) == [0], 5)
    eventually(lambda: changes == [CountChange(ANN, 3, 0)])
    assert counts.workers() == [alive.name]


def test_a_worker_is_listed_at_once_on_a_machine_that_has_just_booted(
    make_worker_counts: MakeWorkerCounts, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_worker_counts(1)
    monkeypatch.setattr(
        worker_counts, "RENEW", time.monotonic() + 1000
    )  # no machine runs for so long already
    one.wake()
    eventually(lambda: counts.workers() == [one.name])


def test_a_worker_stays_listed_while_it_holds_something_and_nothing_changes(
    make_worker_counts: MakeWorkerCounts, counts: Counts
) -> None:
    one = make_worker_counts()
    one.add({ANN: 1})
    eventually(lambda: totals(counts, ANN) == [1])
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        assert counts.workers() == [one.name]
        time.sleep(0.05)


def test_what_is_dropped_later_is_held_until_then(
    make_worker_counts: MakeWorkerCounts, counts: Counts
) -> None:
    one = make_worker_counts()
    changes: list[CountChange] = []
    one.listen(changes.extend)
    one.add({ANN: 1})
    eventually(lambda: totals(counts, ANN) == [1])
    one.drop_later(ANN, 1.5)
    one.add({ANN: 1})  # it came back
    eventually(lambda: changes == [CountChange(ANN, 0, 1), CountChange(ANN, 1, 2), CountChange(ANN, 2, 1)])
    one.drop_later(ANN, 0.1)
    eventually(lambda: changes[3:] == [CountChange(ANN, 1, 0)])


def test_all_counts_are_reported_again_when_redis_lost_them(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_counts, "RENEW", 0.2)
    prefix = f"test-{uuid.uuid4().hex}"
    broker = connect_broker(Settings(broker_url=redis_url, prefix=prefix))
    one = WorkerCounts(broker.counts)
    one.add({ANN: 2, BOB: 1})
    eventually(lambda: totals(broker.counts, ANN, BOB) == [2, 1])
    with redis.Redis.from_url(redis_url) as client:
        client.delete(*client.keys("{" + prefix + ":0}:*"))
    eventually(lambda: totals(broker.counts, ANN, BOB) == [2, 1])
    one.close()
    broker.close()


def test_without_a_broker_the_totals_of_a_reservation_fail_in_time() -> None:
    broker = connect_broker(Settings(broker_url="redis://127.0.0.1:1", publish_timeout=0.2))
    one = WorkerCounts(broker.counts)
    reservation = one.reserve([ANN])
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="did not answer in time"):
        reservation.totals(0.3)
    assert time.monotonic() - began < 0.3 + stretched(1.0)
    assert one.unreported() == 0  # a process that stops does not wait for it
    one.close()
    broker.close()


# -- limits --------------------------------------------------------------------------------------------------


def test_a_place_that_became_free_is_found_by_trying_one_worker_after_the_other(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused attempt counts until its worker has released it. That must not refuse the next one, too."""
    monkeypatch.setattr(worker_counts, "GATHER", 60.0)  # reports only after `hurry`
    monkeypatch.setattr(limits, "COUNTS_TIMEOUT", 10.0)
    workers_counts = [WorkerCounts(broker.counts) for _ in range(2)]
    with ExitStack() as stack:
        for one in workers_counts:
            stack.callback(one.close)
        workers = [Limits(Settings(max_streams_per_user=2), one, broker) for one in workers_counts]
        held = [workers[0].reserve("ann", None) for _ in range(2)]
        turns = itertools.cycle(workers)

        def reserve() -> Reservation | None:
            try:
                return next(turns).reserve("ann", None)
            except Refused:
                return None

        assert [reserve() for _ in range(4)] == [None] * 4
        last = held.pop()
        assert last is not None
        last.release()
        workers_counts[0].hurry()
        assert eventually(reserve) is not None
