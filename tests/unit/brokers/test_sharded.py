from __future__ import annotations

from collections.abc import Sequence

import pytest

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.errors import BrokerUnavailable
from flask_sse_push.protocol.channel import BROADCAST, shard_of
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Entry, Publication
from tests.support.policies import keeping

BOUNDS = keeping(100, 60.0)
#: On the first, and on the second of two shards.
FIRST, SECOND = "d", "a"


class Shaky(MemoryBroker):
    """A broker whose next publish can be made to fail."""

    failing = False

    def publish(self, publications: Sequence[Publication], once: str | None = None) -> list[Cursor]:
        if self.failing:
            raise BrokerUnavailable("failing")
        return super().publish(publications, once)


@pytest.fixture
def shards() -> list[Shaky]:
    return [Shaky(BOUNDS, f"{number}2aaaa") for number in range(2)]


def event(*channels: str) -> Publication:
    return Publication(b"data: x\n\n", channels)


def entries(shard: MemoryBroker, channel: str) -> list[Entry]:
    return shard.history({channel: 0}, "nobody").channels[channel].entries


def test_the_channels_of_these_tests_lie_on_different_shards() -> None:
    assert (shard_of(FIRST, 2), shard_of(SECOND, 2), shard_of("!control", 2)) == (0, 1, 0)
    assert {shard_of(name, 1) for name in map(chr, range(97, 123))} == {0}


def test_an_event_goes_to_the_shards_of_its_channels(shards: list[Shaky]) -> None:
    broker = ShardedBroker(shards)
    cursors = broker.publish([event(SECOND), event(SECOND, FIRST), event(FIRST), event(BROADCAST)])
    assert [cursor.epoch[0] for cursor in cursors] == ["1", "1", "0", "0"]
    assert [len(entries(shards[0], name)) for name in (FIRST, SECOND, BROADCAST)] == [2, 0, 1]
    assert [len(entries(shards[1], name)) for name in (FIRST, SECOND, BROADCAST)] == [0, 2, 1]
    copy = entries(shards[0], FIRST)[0]
    assert copy.shared
    assert copy.channels == (SECOND, FIRST)


def test_a_repeated_publish_stores_the_missing_parts(shards: list[Shaky]) -> None:
    broker = ShardedBroker(shards)
    shards[1].failing = True
    with pytest.raises(BrokerUnavailable):
        broker.publish([event(FIRST, SECOND)], once="x")
    shards[1].failing = False
    first = broker.publish([event(FIRST, SECOND)], once="x")
    assert broker.publish([event(FIRST, SECOND)], once="x") == first
    assert (len(entries(shards[0], FIRST)), len(entries(shards[1], SECOND))) == (1, 1)


def test_heads_are_those_of_all_shards(shards: list[Shaky]) -> None:
    broker = ShardedBroker(shards)
    broker.publish([event(FIRST)])
    (newest,) = broker.publish([event(SECOND)])
    assert set(broker.heads(10)) == {FIRST, SECOND}
    assert len(broker.heads(1)) == 1
    assert broker.history({SECOND: 0}, "nobody").channels[SECOND].head == newest.id


def test_counts_and_claims_lie_on_the_first_shard(shards: list[Shaky]) -> None:
    broker = ShardedBroker(shards)
    assert broker.counts is shards[0].counts
    assert broker.claim("x", 5.0)
    assert not shards[0].claim("x", 5.0)
    assert shards[1].claim("x", 5.0)
    broker.close()
    broker.close()
