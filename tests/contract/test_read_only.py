"""What holds while Redis refuses writes: everything can still be read, and the error says what to do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import pytest

from flask_sse_push import BrokerUnavailable
from flask_sse_push.brokers.base import Echo, Subscribed
from tests.support.deadline import eventually
from tests.support.processes import free_port

from .test_redis import Store, receive

Refusal = Callable[[Store], object]


def _run_out_of_memory(store: Store) -> None:
    store.client.config_set("maxmemory-policy", "noeviction")
    store.client.config_set("maxmemory", 1)


#: Makes the server refuse writes, by the code of its error. The third value is a part of the advice.
REFUSALS: dict[str, tuple[Refusal, Refusal, str]] = {
    "OOM": (_run_out_of_memory, lambda store: store.client.config_set("maxmemory", 0), "`maxmemory`"),
    "NOREPLICAS": (
        lambda store: store.client.config_set("min-replicas-to-write", 1),
        lambda store: store.client.config_set("min-replicas-to-write", 0),
        "`min-replicas-to-write`",
    ),
    "READONLY": (
        lambda store: store.client.replicaof("127.0.0.1", free_port()),
        lambda store: store.client.replicaof("NO", "ONE"),
        "SSE_PUSH_BROKER_URL",
    ),
}


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    for _, end, _ in REFUSALS.values():
        end(store)
    store.close()


@pytest.mark.parametrize("code", REFUSALS)
def test_a_server_that_takes_no_writes_can_be_read(
    store: Store, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin, end, advice = REFUSALS[code]
    before = [store.publish(str(n)) for n in range(5)]
    with contextlib.closing(store.broker.link("ear")) as link:
        link.subscribe(["a"])
        assert receive(link, 1) == [Subscribed("a")]
        begin(store)
        for _ in range(3):
            history = store.broker.history({"a": before[1].id, "b": 0}, "ear")
            assert history.epoch == before[0].epoch
            assert [entry.id for entry in history.channels["a"].entries] == [each.id for each in before[2:]]
            assert history.channels["a"].start <= before[1].id
            assert history.last >= before[-1].id, "no position is made, and none is lost"
            assert receive(link, 1) == [Echo(history.epoch, history.last)]
        with pytest.raises(BrokerUnavailable, match=code) as caught:
            store.publish("refused")
        assert advice in str(caught.value)
        end(store)
        after = eventually(lambda: store.publish("after"))
        assert store.ids() == [each.id for each in (*before, after)]
        assert store.broker.probe("ear").id > after.id
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    events = [record.event for record in warnings]  # type: ignore[attr-defined]
    assert events == ["broker_read_only", "broker_writable"]
    assert advice in warnings[0].getMessage()


def test_an_empty_server_that_takes_no_writes_says_so(store: Store) -> None:
    begin, _, advice = REFUSALS["NOREPLICAS"]
    begin(store)
    with pytest.raises(BrokerUnavailable, match="NOREPLICAS") as caught:
        store.broker.history({"a": 0}, "ear")
    assert advice in str(caught.value)


def test_damaged_data_are_told_while_nothing_can_be_mended(store: Store) -> None:
    before = [store.publish(str(n)) for n in range(3)]
    newest = store.publish("newest", "c")
    store.client.zadd(store.base + "heads", {"a": 1.5})
    store.client.delete(store.base + "list:b")
    store.client.set(store.base + "list:b", "x")
    REFUSALS["NOREPLICAS"][0](store)
    history = store.broker.history({"a": before[0].id, "b": 0}, "ear")
    assert history.channels["a"].start >= newest.id
    assert history.channels["b"].entries == []
