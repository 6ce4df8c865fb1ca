"""A slot of a cluster moves, and a primary fails. Uses real servers and real gunicorn workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_sse_push import MessageAnnouncer
from flask_sse_push.outbox import Outbox, relay
from flask_sse_push.outbox.relay import Relay
from flask_sse_push.protocol.channel import shard_of
from tests.support.clusters import Cluster, cluster
from tests.support.deadline import eventually
from tests.support.failover import Publisher, Reader
from tests.support.processes import Gunicorn, gunicorn
from tests.support.servers import Server
from tests.support.stream import Stream

LIMIT = 15.0
#: Two channels on different shards, whose slots belong to different nodes. Broadcasts lie on A's shard.
A, B = "a", "b"
TAGS = {name: f"{{sse:{shard_of(name, 8)}}}" for name in (A, B)}
LIST = f"{TAGS[A]}:list:{A}"
ALL_TAGS = [f"{{sse:{shard}}}" for shard in range(8)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def served(nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    env = {"SSE_PUSH_BROKER_URL": nodes.url, "SSE_PUSH_PROBE": "1", "SSE_PUSH_HEARTBEAT": "1"}
    log = tmp_path_factory.mktemp("log") / "server.log"
    with gunicorn("tests.apps.plain:app", env=env, workers=2, log=log) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(nodes: Cluster) -> None:
    for tag in ALL_TAGS:
        client = nodes.client(nodes.owner(nodes.slot(tag), among=alive(nodes)))
        for key in client.keys(f"{tag}:list:*"):
            client.delete(key)


def alive(nodes: Cluster) -> list[Server]:
    return [node for node in nodes.nodes if node.is_running]


def stored(nodes: Cluster, channel: str) -> list[int]:
    """The events of a channel that its current owner has."""
    client = nodes.client(nodes.owner(nodes.slot(TAGS[channel]), among=alive(nodes)))
    entries = client.lrange(f"{TAGS[channel]}:list:{channel}", 0, -1)
    return [json.loads(entry.partition("data: ")[2]) for entry in entries]


def channels_of(number: int) -> list[str]:
    """The channels of an event. Most events go to one shard, some to both."""
    if number % 10 == 0:
        return [A, B]
    return [A if number % 2 else B]


def from_shard_of(numbers: Iterable[int], channel: str, first: int) -> list[int]:
    """The numbers that a stream with both channels gets from the shard of `channel`.

    :param first: the first number of this test. A stream that begins live may also get the last event before
    it.
    """
    return [number for number in numbers if number >= first and channels_of(number)[0] == channel]


def follow(nodes: Cluster, served: Gunicorn, first: int) -> tuple[list[Reader], Publisher]:
    """Opens 8 streams with both channels, and starts a publisher. Returns after 100 events."""
    readers = [Reader(served.url, f"{A},{B}") for _ in range(8)]
    publisher = Publisher(nodes.url, channels_of=channels_of, first=first)
    publisher.start()
    eventually(lambda: len(publisher.acknowledged) > 100, 20)
    return readers, publisher


def test_the_relay_of_an_outbox_stores_each_event_once_on_the_nodes(nodes: Cluster, tmp_path: Path) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    outbox = Outbox(create_engine(f"sqlite:///{tmp_path}/outbox.db?timeout=60"), announcer)
    outbox.create_all()
    working, killed = Relay(outbox, announcer), Relay(outbox, announcer)
    with Session(outbox.engine) as session:
        for number in range(100):
            outbox.publish(session, number, channel=(A, B)[number % 2])
        outbox.publish(session, 100, channel=[A, B])
        session.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "delete", lambda table: 1 / 0)  # as if it were killed after the publish
        with pytest.raises(ZeroDivisionError):
            killed.run_once()
    killed._release()
    thread = threading.Thread(target=working.run)
    thread.start()
    try:
        eventually(lambda: outbox.backlog().waiting == 0)
        with Session(outbox.engine) as session, session.begin():
            outbox.publish(session, 101, channel=A)  # wakes the relay over the nodes
        eventually(lambda: outbox.backlog().waiting == 0)
    finally:
        working.close()
        thread.join(60)
    assert stored(nodes, A) == [*range(0, 100, 2), 100, 101]
    assert stored(nodes, B) == [*range(1, 100, 2), 100]
    announcer.close()
    outbox.engine.dispose()


def test_live_events_use_sharded_pubsub(nodes: Cluster, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    with Stream(f"{served.url}/stream?channels={A}") as stream:
        stream.next_of("sse.open")
        announcer.publish(1, channel=A)
        assert stream.next_of("message").json() == 1
        owner = nodes.client(nodes.owner(nodes.slot(LIST)))
        assert owner.execute_command("PUBSUB", "SHARDNUMSUB", f"{TAGS[A]}:live:{A}")[1] == 1
        assert all(nodes.client(node).pubsub_channels() == [] for node in nodes.nodes)


def test_channels_of_two_shards_lie_on_two_nodes(nodes: Cluster, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    announcer.publish(1, channel=A)
    announcer.publish(2, channel=B)
    assert nodes.owner(nodes.slot(TAGS[A])) is not nodes.owner(nodes.slot(TAGS[B]))
    assert (stored(nodes, A), stored(nodes, B)) == ([1], [2])


def test_a_stream_over_two_shards_gets_each_event_once_and_resumes(nodes: Cluster, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    url = f"{served.url}/stream?channels={A},{B}"
    with Stream(url) as stream:
        stream.next_of("sse.open")
        announcer.publish(1, channel=[A, B])
        announcer.broadcast(2)
        announcer.publish(3, channel=B)
        assert sorted(stream.next_of("message").json() for _ in range(3)) == [1, 2, 3]
        cursor = stream.cursor
    assert cursor is not None
    assert len(cursor) == 1 + 6 + 2 * 15
    announcer.publish(4, channel=[B, A])
    announcer.broadcast(5)
    announcer.publish(6, channel=A)
    with Stream(url, cursor=cursor) as stream:
        assert stream.next_of("sse.open").json()["resumed"]
        assert sorted(stream.next_of("message").json() for _ in range(3)) == [4, 5, 6]
        announcer.publish(7, channel=[A, B])
        assert stream.next_of("message").json() == 7


def test_eight_shards_fit_into_one_cursor(nodes: Cluster, served: Gunicorn) -> None:
    names = {shard_of(name, 8): name for name in map(chr, range(ord("a"), ord("z") + 1))}
    with Stream(f"{served.url}/stream?channels={','.join(names.values())}") as stream:
        cursor = stream.next_of("sse.open").id
    assert len(names) == 8
    assert cursor is not None
    assert len(cursor) <= 128


def test_a_stream_that_joins_a_channel_of_another_shard_gets_a_reset(
    nodes: Cluster, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    with Stream(f"{served.url}/stream?channels={A}") as stream:
        connection = stream.next_of("sse.open").json()["connection"]
        announcer.join(connection, B)
        assert stream.next_of("sse.channels").json()["channels"] == [A, B]
        reset = stream.next_of("sse.reset")
        assert reset.json() == {"channels": [A, B], "reason": "channels"}
        announcer.publish(1, channel=B)
        announcer.publish(2, channel=[A, B])
        assert [stream.next_of("message").json() for _ in range(2)] == [1, 2]


def test_a_slot_moves_under_load_and_back(nodes: Cluster, served: Gunicorn) -> None:
    readers, publisher = follow(nodes, served, 1000)
    leaver = readers.pop()
    leaver.close()
    slot = nodes.slot(LIST)
    owner = nodes.owner(slot)
    other = next(node for node in nodes.primaries() if node is not owner)
    for target in (other, owner):
        moved = time.monotonic()
        nodes.move(slot, target)
        eventually(lambda moved=moved: publisher.acknowledged[-1][0] > moved + 0.5, LIMIT)  # type: ignore[misc]
        assert nodes.owner(slot) is target
    publisher.finish()
    numbers = [number for _, number in publisher.acknowledged]
    returned = Reader(served.url, f"{A},{B}", leaver.cursor)
    for reader in (*readers, returned):
        before = leaver.numbers if reader is returned else []
        eventually(lambda reader=reader, before=before: {*before, *reader.numbers} >= set(numbers), LIMIT)  # type: ignore[misc]
        got = before + reader.numbers
        assert [from_shard_of(got, name, 1000) for name in (A, B)] == [
            from_shard_of(numbers, name, 1000) for name in (A, B)
        ]
        assert (reader.resets, reader.ended) == (0, False)
        reader.close()
    assert stored(nodes, A) == [number for number in numbers if A in channels_of(number)]
    times = [at for at, number in readers[0].got if channels_of(number) == [A]]
    print(f"longest silence {max(late - early for early, late in pairwise(times)):.2f} s")


def test_a_killed_primary_is_replaced_under_load(nodes: Cluster, served: Gunicorn) -> None:
    readers, publisher = follow(nodes, served, 10_000)
    old = nodes.owner(nodes.slot(LIST))
    killed = time.monotonic()
    old.kill()
    eventually(lambda: publisher.acknowledged[-1][0] > killed + 0.5, LIMIT)
    eventually(lambda: all(last_of_a(reader) > killed + 0.5 for reader in readers), LIMIT)
    publisher.finish()
    assert nodes.owner(nodes.slot(LIST), among=alive(nodes)) is not old
    newest = publisher.acknowledged[-1][1]
    eventually(lambda: all(newest in reader.numbers for reader in readers), 10)
    recovered = sorted(first_of_a(reader, killed + 0.5) - killed for reader in readers)
    lost = {number for _, number in publisher.acknowledged if A in channels_of(number)} - set(
        stored(nodes, A)
    )
    print(f"{len(stored(nodes, A))} events, {len(lost)} lost; events again after {recovered[-1]:.2f} s")
    only_b = [number for number in stored(nodes, B) if channels_of(number) == [B]]
    for reader in readers:
        assert not reader.ended
        assert (
            from_shard_of(reader.numbers, B, 10_000) == only_b
        )  # the node of the other shard was never down
        if not reader.resets:
            assert from_shard_of(reader.numbers, A, 10_000) == stored(nodes, A)
        assert len(set(reader.numbers)) == len(reader.numbers)
        reader.close()
    assert publisher.refused
    assert recovered[-1] < LIMIT


def first_of_a(reader: Reader, after: float) -> float:
    """The time at which a stream got its first event on channel A alone after the time `after`."""
    return min(at for at, number in reader.got if at > after and channels_of(number) == [A])


def last_of_a(reader: Reader) -> float:
    """The time at which a stream got its last event on channel A alone; 0 if it got none."""
    return max((at for at, number in reader.got if channels_of(number) == [A]), default=0.0)
