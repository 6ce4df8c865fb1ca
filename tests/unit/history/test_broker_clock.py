"""What a worker knows about the broker's clock from replies, and which replies it trusts."""

from __future__ import annotations

import random

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.broker_clock import DRIFT, SAFE_DRIFT, BrokerClock
from flask_sse_push.history.shards import Shards
from flask_sse_push.protocol.entry import Entry

#: The broker's time at the worker's monotonic time 0, in seconds since 1970.
AHEAD = 1_800_000_000.0


def micros(now: float, ahead: float = AHEAD) -> int:
    """The broker's id at a monotonic time of the worker."""
    return round((now + ahead) * 1e6)


def test_without_a_reply_the_time_of_an_event_is_unknown() -> None:
    assert BrokerClock().stored_at(micros(1.0)) is None


def test_the_quickest_reply_says_the_broker_s_time_best() -> None:
    clock = BrokerClock()
    clock.note(micros(10.0), 9.0, 10.001)  # the reply came at once, but the call took long
    clock.note(micros(20.0002), 20.0, 20.0006)
    clock.note(micros(23.9), 23.0, 24.0)
    stored_at = clock.stored_at(micros(25.0))
    assert stored_at is not None
    assert abs(stored_at - 25.0) < 0.0003


def test_a_busy_worker_knows_the_broker_s_time_within_five_milliseconds() -> None:
    chance, clock = random.Random(1), BrokerClock()
    for turn in range(200):
        sent_at = 3.0 * turn
        there, back = (chance.expovariate(1 / 0.02) + 0.0002 for _ in range(2))
        there = 0.0002 if turn % 10 == 0 else there
        back = 0.0002 if turn % 10 == 0 else back
        drifted = AHEAD + sent_at * DRIFT / 2
        clock.note(micros(sent_at + there, drifted), sent_at, sent_at + there + back)
        stored_at = clock.stored_at(micros(sent_at, drifted))
        assert stored_at is not None
        assert abs(stored_at - sent_at) < 0.005


def test_the_time_that_decides_about_rights_is_never_too_early() -> None:
    """The broker's clock is a little faster or slower than the worker's. It is set back at last."""
    for drift in (SAFE_DRIFT, 0.0, -SAFE_DRIFT):
        clock, ahead = BrokerClock(), AHEAD
        for turn in range(1, 50):
            now = 5.0 * turn
            ahead = AHEAD - 60 if turn == 49 else AHEAD + drift * now
            stored, last = micros(now - 4.0, AHEAD + drift * (now - 4.0)), micros(now, ahead)
            clock.note(max(stored + 1, last), now - 0.001, now + 0.02)
            assert now - 4.0 - 1e-6 <= clock.stored_by(stored) <= now + 0.02
            assert turn == 49 or clock.stored_by(stored) <= now - 4.0 + 0.03


def test_nothing_is_known_while_the_broker_s_clock_stands_still_for_the_worker() -> None:
    """A clock that was set back makes ids count on by one, until the clock has caught up."""
    clock = BrokerClock()
    newest = micros(10.0)
    clock.note(newest, 9.999, 10.001)
    for step in range(1, 4):
        clock.note(newest + step, 9.999 + 3 * step, 10.001 + 3 * step)
        assert clock.stored_at(newest + step) is None
    clock.note(micros(25.0, AHEAD - 12), 24.999, 25.001)
    assert clock.stored_at(micros(25.0, AHEAD - 12)) is None
    clock.note(micros(28.0, AHEAD - 12), 27.999, 28.001)
    stored_at = clock.stored_at(micros(28.0, AHEAD - 12))
    assert stored_at is not None
    assert abs(stored_at - 28.0) < 0.0015


def test_an_event_counts_by_the_clock_of_its_own_shard() -> None:
    settings = Settings()
    brokers = [MemoryBroker(settings.policies, epoch) for epoch in ("02aaaa", "12bbbb")]
    shards = Shards(brokers, "inbox", lambda item: None, settings)
    for shard, ahead in zip(shards.all, (AHEAD, AHEAD + 3600), strict=True):
        shard.history_cache.broker_clock.note(micros(10.0, ahead), 10.0, 10.0)
    for epoch, ahead in (("02aaaa", AHEAD), ("12bbbb", AHEAD + 3600)):
        stored_at = shards.stored_at(Entry(epoch, micros(12.0, ahead), 0, b"data: x\n\n"))
        assert stored_at is not None
        assert abs(stored_at - 12.0) < 0.001
