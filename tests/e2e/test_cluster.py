"""The nodes of a cluster change: a slot moves, a primary dies. Real servers, real gunicorn workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_push import MessageAnnouncer
from tests.support.clusters import Cluster, cluster
from tests.support.deadline import eventually
from tests.support.following import Publisher, Reader
from tests.support.processes import Gunicorn, gunicorn
from tests.support.servers import Server
from tests.support.stream import Stream

LIMIT = 15.0
LIST = "{sse:0}:list:a"


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
    client = nodes.client(nodes.owner(nodes.slot(LIST), among=alive(nodes)))
    for key in client.keys("{sse:0}:list:*"):
        client.delete(key)


def alive(nodes: Cluster) -> list[Server]:
    return [node for node in nodes.nodes if node.is_running]


def kept(nodes: Cluster) -> list[Any]:
    """What the owner of now holds of channel a."""
    client = nodes.client(nodes.owner(nodes.slot(LIST), among=alive(nodes)))
    return [json.loads(entry.partition("data: ")[2]) for entry in client.lrange(LIST, 0, -1)]


def test_live_events_stay_within_the_shard(nodes: Cluster, served: Gunicorn) -> None:
    announcer = MessageAnnouncer.from_url(nodes.url)
    owner = nodes.owner(nodes.slot(LIST))
    with Stream(f"{served.url}/stream?channels=a") as stream:
        stream.next_of("sse.open")
        announcer.publish(1, channel="a")
        assert stream.next_of("message").json() == 1
        assert nodes.client(owner).execute_command("PUBSUB", "SHARDNUMSUB", "{sse:0}:live:a")[1] == 1
        assert all(nodes.client(node).pubsub_channels() == [] for node in nodes.nodes)


def test_a_slot_moves_under_load_and_back(nodes: Cluster, served: Gunicorn) -> None:
    slot = nodes.slot(LIST)
    readers = [Reader(served.url) for _ in range(10)]
    publisher = Publisher(nodes.url)
    publisher.start()
    eventually(lambda: len(publisher.acknowledged) > 50, 10)
    home = nodes.owner(slot)
    other = next(node for node in nodes.primaries() if node is not home)
    for target in (other, home):
        moved = time.monotonic()
        nodes.move(slot, target)
        eventually(lambda moved=moved: publisher.acknowledged[-1][0] > moved + 0.5, LIMIT)  # type: ignore[misc]
        assert nodes.owner(slot) is target
    publisher.finish()
    newest = publisher.acknowledged[-1][1]
    eventually(lambda: all(reader.numbers[-1:] == [newest] for reader in readers), LIMIT)
    assert kept(nodes) == [number for _, number in publisher.acknowledged]
    for reader in readers:
        assert (reader.numbers, reader.resets, reader.ended) == (kept(nodes), 0, False)
        reader.close()


def test_a_killed_primary_is_replaced_under_load(nodes: Cluster, served: Gunicorn) -> None:
    slot = nodes.slot(LIST)
    readers = [Reader(served.url) for _ in range(10)]
    publisher = Publisher(nodes.url)
    publisher.start()
    eventually(lambda: len(publisher.acknowledged) > 100, 10)
    old = nodes.owner(slot)
    killed = time.monotonic()
    old.kill()
    eventually(lambda: publisher.acknowledged[-1][0] > killed + 0.5, LIMIT)
    eventually(lambda: all(reader.got[-1][0] > killed + 0.5 for reader in readers), LIMIT)
    publisher.finish()
    assert nodes.owner(slot, among=alive(nodes)) is not old
    newest = publisher.acknowledged[-1][1]
    eventually(lambda: all(reader.got[-1][1] == newest for reader in readers), 10)
    recovered = sorted(min(at for at, _ in reader.got if at > killed + 0.5) - killed for reader in readers)
    lost = {number for _, number in publisher.acknowledged} - set(kept(nodes))
    print(f"{len(kept(nodes))} events, {len(lost)} lost; streams again after {recovered[-1]:.2f} s")
    for reader in readers:
        assert not reader.ended
        if not reader.resets:
            assert reader.numbers == kept(nodes)
        assert len(set(reader.numbers)) == len(reader.numbers)
        reader.close()
    assert publisher.refused
    assert recovered[-1] < LIMIT
