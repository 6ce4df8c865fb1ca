"""The primary of a Sentinel service fails. Uses real servers, real sentinels and real gunicorn workers.

The surviving events are the events that the new primary has. A client that got no `sse.reset` must have got
exactly these events, in order and each once.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from tests.support.deadline import eventually, stretched
from tests.support.failover import Publisher, Reader
from tests.support.processes import Gunicorn, gunicorn
from tests.support.sentinels import PASSWORD, SENTINEL_PASSWORD, SentinelService, sentinel_service
from tests.support.stream import Stream

#: Seconds until publishing and streams must work again. The sentinels wait for two of them.
LIMIT = 15.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SentinelService]:
    with sentinel_service(tmp_path) as service:
        yield service


@pytest.fixture
def served(service: SentinelService, log: Path) -> Iterator[Gunicorn]:
    env = {"SSE_PUSH_BROKER_URL": service.url, "SSE_PUSH_PROBE": "1", "SSE_PUSH_HEARTBEAT": "1"}
    with gunicorn("tests.apps.plain:app", env=env, workers=2, log=log) as server:
        yield server


def surviving(service: SentinelService) -> list[int]:
    """The events of channel a that the current primary has."""
    client = service.client(service.primary())
    return [json.loads(entry.partition("data: ")[2]) for entry in client.lrange("{sse:0}:list:a", 0, -1)]


def test_a_killed_primary_is_replaced_under_load(service: SentinelService, served: Gunicorn) -> None:
    readers = [Reader(served.url) for _ in range(20)]
    publisher = Publisher(service.url)
    publisher.start()
    eventually(lambda: len(publisher.acknowledged) > 100, 10)
    old = service.primary()
    killed = time.monotonic()
    old.kill()
    eventually(lambda: publisher.acknowledged[-1][0] > killed + 0.5, LIMIT)
    eventually(lambda: all(reader.got_event_after(killed + 0.5) for reader in readers), LIMIT)
    publisher.finish()
    assert service.primary() is not old
    newest = publisher.acknowledged[-1][1]
    eventually(lambda: all(reader.numbers[-1:] == [newest] for reader in readers), 10)

    survived = surviving(service)
    lost = {number for _, number in publisher.acknowledged} - set(survived)
    recovered = sorted(min(at for at, _ in reader.got if at > killed + 0.5) - killed for reader in readers)
    published = min(at for at, _ in publisher.acknowledged if at > killed + 0.5) - killed
    print(f"{len(survived)} events, {len(lost)} lost, {publisher.refused} publishes refused")
    print(
        f"works again after: publish {published:.2f} s, streams {recovered[10]:.2f} to {recovered[-1]:.2f} s"
    )
    assert publisher.refused
    assert survived == sorted(set(survived))
    for reader in readers:
        assert not reader.ended
        if not reader.resets:
            assert reader.numbers == survived
        assert reader.resets <= 1
        assert len(set(reader.numbers)) == len(reader.numbers)
        reader.close()
    assert recovered[-1] < stretched(LIMIT)


def test_clients_that_got_events_which_a_lagging_replica_lacks_get_a_reset(
    service: SentinelService, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(service.url)
    readers = [Reader(served.url) for _ in range(4)]
    before = [announcer.publish(number, channel="a") for number in range(10)]
    primary, replicas = service.primary(), service.replicas()
    eventually(lambda: all(stored_count(service, node) == 10 for node in replicas), 10)

    for node in replicas:  # they lose their link to the primary, and cannot open a new one
        service.client(node).config_set("masterauth", "wrong")
    service.client(primary).client_kill_filter(_type="slave")
    lost = [announcer.publish(number, channel="a") for number in range(10, 15)]
    eventually(lambda: all(reader.numbers == list(range(15)) for reader in readers), 10)
    assert {stored_count(service, node) for node in replicas} == {10}
    primary.kill()
    eventually(lambda: service.primary() is not primary, LIMIT)
    for node in replicas:
        service.client(node).config_set("masterauth", PASSWORD)
    publish_when_back(announcer, 100)
    eventually(lambda: all(reader.resets for reader in readers), LIMIT)
    announcer.publish(101, channel="a")

    eventually(lambda: all(reader.numbers[-1:] == [101] for reader in readers), LIMIT)
    assert surviving(service) == [*range(10), 100, 101]
    for reader in readers:
        assert reader.resets == 1
        assert reader.numbers[:15] == list(range(15))
        assert reader.numbers[15:] in (
            [100, 101],
            [101],
        )  # a client may get 100 before its reset, or not at all: the reset covers it
        reader.close()
    with Stream(f"{served.url}/stream?channels=a", cursor=before[4]) as stream:
        assert stream.next_of("sse.open").json()["resumed"] is True
        assert [event.json() for event in stream.take(7)] == [5, 6, 7, 8, 9, 100, 101]
    with Stream(f"{served.url}/stream?channels=a", cursor=lost[1]) as stream:
        assert stream.next_of("sse.open").json()["resumed"] is False
        assert stream.next().json() == {"channels": ["a"], "reason": "epoch"}


def stored_count(service: SentinelService, node: Any) -> int:
    """How many events of channel a the node has."""
    return int(service.client(node).llen("{sse:0}:list:a"))


def publish_when_back(announcer: MessageAnnouncer, number: int) -> float:
    """Publishes as soon as the broker accepts it; returns the seconds that this took."""
    began = time.monotonic()

    def try_it() -> bool:
        try:
            announcer.publish(number, channel="a", id=f"again-{number}")
        except BrokerUnavailable:
            return False
        return True

    eventually(try_it, LIMIT)
    return time.monotonic() - began


def test_a_frozen_primary_is_replaced_and_not_used_when_it_thaws(
    service: SentinelService, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(service.url)
    reader = Reader(served.url)
    announcer.publish(0, channel="a")
    eventually(lambda: reader.numbers == [0], 10)
    old = service.primary()
    old.signal(signal.SIGSTOP)
    began = time.monotonic()
    publish_when_back(announcer, 1)
    eventually(lambda: reader.numbers[-1:] == [1], LIMIT)
    print(f"working again after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < stretched(LIMIT)
    old.signal(signal.SIGCONT)
    assert service.client(old).role()[0] == "master"  # it does not know of its successor yet
    announcer.publish(2, channel="a")
    eventually(lambda: reader.numbers[-2:] == [1, 2], 5)
    assert service.primary() is not old
    reader.close()


def test_workers_leave_a_primary_that_does_not_know_it_was_replaced(
    service: SentinelService, served: Gunicorn
) -> None:
    announcer = MessageAnnouncer.from_url(service.url)
    reader = Reader(served.url)
    announcer.publish(0, channel="a")
    eventually(lambda: reader.numbers == [0], 10)
    old = service.primary()
    client = service.client(old)
    client.config_set("requirepass", "another")  # from now on, sentinels and replicas cannot log in to it
    for connection in client.client_list():
        if connection["name"].startswith("sentinel-") or "S" in connection["flags"]:
            client.client_kill_filter(_id=connection["id"])
    on_old = MessageAnnouncer.from_url(f"redis://:another@127.0.0.1:{old.port}/1")
    on_old.publish(-1, channel="a")
    eventually(lambda: reader.numbers == [0, -1], 10)  # the worker's connections are still open
    began = time.monotonic()
    eventually(lambda: service.primary() is not old, LIMIT)
    found = time.monotonic()
    on_old.publish(-2, channel="a")

    def got_reset() -> bool:
        on_old.publish(-3, channel="a")
        return reader.resets > 0

    eventually(got_reset, LIMIT, every=0.2)
    print(f"replaced after {found - began:.2f} s, left {time.monotonic() - found:.2f} s later")
    publish_when_back(announcer, 1)
    eventually(lambda: reader.numbers[-1:] == [1], LIMIT)
    assert client.role()[0] == "master"
    assert not reader.ended
    reader.close()


def test_errors_about_a_wrong_password_do_not_contain_it(service: SentinelService) -> None:
    for right in ("p%40ss%2Fword", SENTINEL_PASSWORD.replace(" ", "+")):
        announcer = MessageAnnouncer.from_url(service.url.replace(right, "wrong-one"))
        with pytest.raises(BrokerUnavailable) as caught:
            announcer.publish(0)
        assert "wrong-one" not in str(caught.value)
        announcer.close()
    announcer = MessageAnnouncer.from_url(service.url.replace("/shop", "/other"))
    with pytest.raises(BrokerUnavailable, match="no sentinel knows a live primary of 'other'"):
        announcer.publish(0)
