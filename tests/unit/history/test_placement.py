"""Which shards channels lie on, and where a stream starts on each of them."""

from __future__ import annotations

import pytest

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.history.fetcher import HistoryFetcher
from flask_sse_push.history.history_cache import HistoryCache
from flask_sse_push.history.placement import Placement
from flask_sse_push.history.position import StartPoint
from flask_sse_push.history.sharded_recovery import start_points
from flask_sse_push.protocol.channel import BROADCAST, shard_of
from flask_sse_push.protocol.cursor import EARLIEST, LOST, Cursor
from flask_sse_push.protocol.entry import Entry
from flask_sse_push.protocol.shard_cursor import ANY_CHANNELS, ShardCursor
from tests.support.policies import keeping

FETCHER = HistoryFetcher(MemoryBroker(keeping(10, 60.0)), "w", lambda reply: None, 5)
CACHES = [HistoryCache(FETCHER, keeping(10, 60.0), 1000, number) for number in range(2)]
#: Two channels of each shard.
ZERO, ONE = ([name for name in "abcdefgh" if shard_of(name, 2) == number][:2] for number in range(2))
BOTH = Placement(CACHES, (ZERO[0], ONE[0], BROADCAST))
ALONE = Placement(CACHES, (ONE[0], BROADCAST))
PARTS = (Cursor("0abcde", 10), Cursor("1abcde", 20))


def test_a_placement_knows_the_shard_of_each_channel() -> None:
    assert (BOTH.is_sharded, ALONE.is_sharded) == (True, False)
    assert ALONE.parts == {1: (ONE[0], BROADCAST)}
    assert ALONE.history_cache is CACHES[1]
    assert BOTH.history_cache_of[ZERO[0]] is CACHES[0]
    assert BOTH.history_cache_of[ONE[0]] is CACHES[1]
    first = min(ZERO[0], ONE[0])  # broadcasts come from its shard
    assert BOTH.history_cache_of[BROADCAST] is BOTH.history_cache_of[first]


def test_the_hash_of_a_placement_does_not_depend_on_the_order_of_its_channels() -> None:
    assert BOTH.channel_hash == Placement(CACHES, (BROADCAST, ONE[0], ZERO[0])).channel_hash != ""
    assert BOTH.channel_hash != Placement(CACHES, (ZERO[1], ONE[0], BROADCAST)).channel_hash
    assert ALONE.channel_hash == ""


def test_an_event_on_several_shards_comes_from_that_of_its_first_channel_with_a_listener() -> None:
    def delivering(*channels: str) -> list[int]:
        entry = Entry("0abcde", 5, 0, b"", shared=True, channels=channels)
        return [number for number in (0, 1) if BOTH.delivers(entry, number)]

    assert delivering(ZERO[0], ONE[0]) == [0]
    assert delivering(ONE[0], ZERO[0]) == [1]
    assert delivering(ZERO[1], ONE[0]) == [1], "nobody listens to the first"


@pytest.mark.parametrize(
    ("placement", "start", "points"),
    [
        (BOTH, StartPoint(), {0: StartPoint(), 1: StartPoint()}),
        (BOTH, StartPoint(newest=3), {0: StartPoint(newest=3), 1: StartPoint(newest=3)}),
        (BOTH, StartPoint(EARLIEST), {0: StartPoint(EARLIEST), 1: StartPoint(EARLIEST)}),
        (
            BOTH,
            StartPoint(str(ShardCursor(BOTH.channel_hash, PARTS))),
            {0: StartPoint(str(PARTS[0])), 1: StartPoint(str(PARTS[1]))},
        ),
        (
            BOTH,
            StartPoint(str(ShardCursor(ANY_CHANNELS, PARTS))),
            {0: StartPoint(str(PARTS[0])), 1: StartPoint(str(PARTS[1]))},
        ),
        (BOTH, StartPoint(str(ShardCursor("abcdef", PARTS))), {0: StartPoint(LOST), 1: StartPoint(LOST)}),
        (
            BOTH,
            StartPoint(str(ShardCursor(ANY_CHANNELS, PARTS[:1]))),
            {0: StartPoint(LOST), 1: StartPoint(LOST)},
        ),
        (BOTH, StartPoint(str(PARTS[0])), {0: StartPoint(LOST), 1: StartPoint(LOST)}),
        (BOTH, StartPoint("odd"), {0: StartPoint(LOST), 1: StartPoint(LOST)}),
        (ALONE, StartPoint(), {1: StartPoint()}),
        (ALONE, StartPoint(str(PARTS[1])), {1: StartPoint(str(PARTS[1]))}),
        (ALONE, StartPoint("odd"), {1: StartPoint("odd")}),
        (ALONE, StartPoint(str(ShardCursor(ANY_CHANNELS, PARTS))), {1: StartPoint(str(PARTS[1]))}),
        (ALONE, StartPoint(str(ShardCursor(ANY_CHANNELS, PARTS[:1]))), {1: StartPoint(LOST)}),
        (ALONE, StartPoint(str(ShardCursor(BOTH.channel_hash, PARTS))), {1: StartPoint(LOST)}),
    ],
)
def test_a_cursor_over_several_shards_starts_each_or_is_lost(
    placement: Placement, start: StartPoint, points: dict[int, StartPoint]
) -> None:
    assert start_points(placement, start) == points
