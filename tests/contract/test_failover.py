"""A replica that takes over, and a server that comes back with older data: what they lack is told.

Both hold a prefix of what was written. So an epoch ends at the last position they have, and another goes on
from there: what clients were given up to it stays good, and nothing after it does.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push import BrokerUnavailable
from flask_sse_push.brokers.base import Broker, History, Link, LinkMessage, LiveEvent, Subscribed
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.protocol.cursor import Cursor, belongs
from flask_sse_push.protocol.entry import Entry, Publication
from tests.support.deadline import eventually, stretched
from tests.support.servers import Server, servers


@pytest.fixture(scope="module", params=["valkey", "redis7"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    options = ("--save", "", "--repl-diskless-sync-delay", "0")
    with servers(tmp_path_factory.mktemp("pair"), 2, *options, engine=request.param) as both:
        yield both


class Side:
    """A broker on one server."""

    def __init__(self, server: Server) -> None:
        self.client: Any = server.client(decode_responses=True)
        self.broker: Broker = connect_broker(
            Settings(broker_url=server.url, prefix="side", publish_timeout=10)
        )

    def publish(self, text: str, once: str | None = None) -> Cursor:
        return self.broker.publish([Publication(b"data: %b\n\n" % text.encode(), ("a",))], once)[0]

    def history(self, after: int = 0) -> History:
        return self.broker.history({"a": after}, "nobody")

    def texts(self) -> list[str]:
        entries = self.history().channels["a"].entries
        return [entry.frame.split(b"data: ")[1].strip().decode() for entry in entries]

    def claims(self, cursor: Cursor) -> bool:
        """Whether the broker says that it still has everything after the cursor."""
        history = self.history(cursor.id)
        good = belongs(cursor, history.epoch, history.lineage)
        return good and history.channels["a"].start <= cursor.id

    def close(self) -> None:
        self.broker.close()
        self.client.close()


@pytest.fixture
def sides(pair: list[Server]) -> Iterator[tuple[Side, Side]]:
    """A primary and its replica, which has caught up."""
    one, other = Side(pair[0]), Side(pair[1])
    one.client.replicaof("NO", "ONE")
    one.client.flushall()
    follow(other, pair[0])
    yield one, other
    one.close()
    other.close()


def follow(side: Side, server: Server) -> None:
    side.client.replicaof("127.0.0.1", server.port)
    eventually(lambda: side.client.info("replication")["master_link_status"] == "up", 20)


def catch_up(primary: Side, replica: Side) -> None:
    def same() -> bool:
        offset = primary.client.info("replication")["master_repl_offset"]
        return bool(replica.client.info("replication")["slave_repl_offset"] >= offset)

    eventually(same, 10)


def receive(link: Link) -> LinkMessage:
    """The next message, which comes alone."""
    (signal,) = eventually(lambda: link.read(0.1), every=0)
    return signal


def test_a_promoted_replica_that_has_everything_keeps_all_cursors(sides: tuple[Side, Side]) -> None:
    primary, replica = sides
    before = [primary.publish(str(n)) for n in range(3)]
    probe = primary.broker.probe("nobody")
    catch_up(primary, replica)
    replica.client.replicaof("NO", "ONE")
    after = [replica.publish(str(n)) for n in range(3, 6)]
    assert {cursor.epoch for cursor in before} == {probe.epoch}
    assert {cursor.epoch for cursor in after} != {probe.epoch}
    assert after[0].id > probe.id
    assert replica.texts() == list("012345")
    assert all(replica.claims(cursor) for cursor in (*before, probe, *after))
    for cursor in before:
        kept = [entry.id for entry in replica.history(cursor.id).channels["a"].entries]
        assert kept == [c.id for c in (*before, *after) if c.id > cursor.id]


def test_positions_that_the_promoted_replica_never_had_are_not_valid(sides: tuple[Side, Side]) -> None:
    primary, replica = sides
    common = primary.publish("common")
    catch_up(primary, replica)
    replica.client.replicaof("NO", "ONE")
    lost = [primary.publish(f"lost {n}") for n in range(3)]
    probe = primary.broker.probe("nobody")
    new = replica.publish("new")
    newer = [replica.publish(f"newer {n}") for n in range(5)][-1]
    assert replica.texts() == ["common", "new", *(f"newer {n}" for n in range(5))]
    assert replica.claims(common)
    assert not any(replica.claims(cursor) for cursor in (*lost, probe))
    assert replica.claims(new)
    assert replica.claims(newer)


def test_a_primary_that_was_demoted_and_promoted_again_notices_what_it_lost(
    sides: tuple[Side, Side], pair: list[Server]
) -> None:
    primary, replica = sides
    common = primary.publish("common")
    catch_up(primary, replica)
    replica.client.replicaof("NO", "ONE")
    lost = primary.publish("lost")
    follow(primary, pair[1])
    primary.client.replicaof("NO", "ONE")
    assert primary.texts() == ["common"]
    assert primary.claims(common)
    assert not primary.claims(lost)


def test_a_repeated_publish_is_stored_once_if_its_first_survived(sides: tuple[Side, Side]) -> None:
    primary, replica = sides
    first = primary.publish("kept", "id-1")
    catch_up(primary, replica)
    replica.client.replicaof("NO", "ONE")
    primary.publish("lost", "id-2")
    assert replica.publish("kept", "id-1") == first
    replica.publish("lost", "id-2")
    assert replica.texts() == ["kept", "lost"]


def test_a_link_gets_the_new_epoch(sides: tuple[Side, Side]) -> None:
    primary, replica = sides
    old = primary.publish("old")
    catch_up(primary, replica)
    replica.client.replicaof("NO", "ONE")
    with contextlib.closing(replica.broker.link("ear")) as link:
        link.subscribe(["a"])
        assert receive(link) == Subscribed("a")
        new = replica.publish("new")
        heard = receive(link)
        assert isinstance(heard, LiveEvent)
        assert Entry.parse(heard.stored).epoch == new.epoch
        assert Entry.parse(heard.stored).prev == old.id


def test_only_so_many_failovers_are_remembered(sides: tuple[Side, Side]) -> None:
    primary, _ = sides
    cursors = []
    for _ in range(12):
        cursors.append(primary.publish("x"))
        primary.client.hset("{side:0}:state", "server", "another")
    assert [primary.claims(cursor) for cursor in cursors] == [False] * 4 + [True] * 8
    assert len({cursor.epoch for cursor in cursors}) == 12


@pytest.mark.parametrize(
    "lineage", ["rubbish", "a:b:c", "x" * 200_000, "é:1", "a:" + "9" * 40, "a:1 " * 1000]
)
def test_a_rubbish_lineage_breaks_nothing(sides: tuple[Side, Side], lineage: str) -> None:
    primary, _ = sides
    first = primary.publish("x")
    primary.client.hset("{side:0}:state", "lineage", lineage)
    assert primary.claims(first)
    primary.client.hset("{side:0}:state", "server", "another")
    assert primary.claims(first)
    assert primary.publish("y").epoch != first.epoch
    assert len(primary.client.hget("{side:0}:state", "lineage")) < 500


def test_without_the_right_to_use_info_all_else_works(sides: tuple[Side, Side], pair: list[Server]) -> None:
    primary, _ = sides
    primary.client.acl_setuser(
        "poor",
        enabled=True,
        nopass=True,
        keys=["*"],
        channels=["*"],
        categories=["+@all"],
        commands=["-info"],
    )
    url = f"redis://poor:x@127.0.0.1:{pair[0].port}/0"
    with contextlib.closing(connect_broker(Settings(broker_url=url, prefix="poor"))) as broker:
        event = Publication(b"data: x\n\n", ("a",))
        first, second = broker.publish([event])[0], broker.publish([event])[0]
        assert first.epoch == second.epoch
        assert broker.history({"a": 0}, "nobody").epoch == first.epoch


@pytest.fixture(params=["valkey", "redis7"])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that has written everything to disk before it replies."""
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with servers(tmp_path, 1, *options, engine=request.param) as (server,):
        yield server


def test_a_restart_from_the_append_only_file_keeps_all_cursors(durable: Server) -> None:
    with contextlib.closing(Side(durable)) as side:
        cursors = [side.publish(str(n)) for n in range(3)]
        cursors.append(side.broker.probe("nobody"))
        durable.kill()
        durable.start()
        assert all(side.claims(cursor) for cursor in cursors)
        assert side.publish("3").id > cursors[-1].id
        assert side.texts() == list("0123")


def test_a_restart_from_an_older_copy_resets(durable: Server, tmp_path: Path) -> None:
    with contextlib.closing(Side(durable)) as side:
        kept = side.publish("kept")
        shutil.copytree(durable.folder, tmp_path / "copy")
        lost = side.publish("lost")
        durable.kill()
        shutil.rmtree(durable.folder)
        shutil.copytree(tmp_path / "copy", durable.folder)
        durable.start()
        side.publish("new")
        assert side.texts() == ["kept", "new"]
        assert side.claims(kept)
        assert not side.claims(lost)


def test_a_publish_waits_for_replicas_when_asked_to(sides: tuple[Side, Side], pair: list[Server]) -> None:
    primary, replica = sides
    settings = Settings(broker_url=pair[0].url, prefix="side", wait_replicas=1, publish_timeout=4.0)
    with contextlib.closing(connect_broker(settings)) as broker:
        event = Publication(b"data: x\n\n", ("a",))
        for _ in range(5):
            stored = broker.publish([event])[0]
            assert replica.client.lindex("{side:0}:list:a", -1).startswith(f"{stored.epoch} {stored.id} ")
        with pair[1].frozen():
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="0 of 1 replicas have the event"):
                broker.publish([event], "id-1")
            with pytest.raises(BrokerUnavailable):  # stored by then, and still nowhere else
                broker.publish([event], "id-1")
            assert time.monotonic() - began < 2 * 4.0 + stretched(1.0)
            assert len(primary.texts()) == 6
        again = broker.publish([event], "id-1")[0]
        assert len(primary.texts()) == 6
        assert replica.client.lindex("{side:0}:list:a", -1).startswith(f"{again.epoch} {again.id} ")


def test_the_rights_that_the_documentation_asks_for_are_enough(
    sides: tuple[Side, Side], pair: list[Server]
) -> None:
    primary, _ = sides
    rights = "on nopass +@all -@dangerous +info ~{poor:*}:* &{poor:*}:*"
    primary.client.execute_command("ACL", "SETUSER", "poor", "reset", *rights.split())
    url = f"redis://poor:x@127.0.0.1:{pair[0].port}/0"
    settings = Settings(broker_url=url, prefix="poor", wait_replicas=1)
    with contextlib.closing(connect_broker(settings)) as broker:
        with contextlib.closing(broker.link("ear")) as link:
            link.subscribe(["a"])
            assert receive(link) == Subscribed("a")
            cursor = broker.publish([Publication(b"data: x\n\n", ("a",))], "id")[0]
            assert isinstance(receive(link), LiveEvent)
        assert broker.history({"a": 0}, "ear").channels["a"].head == cursor.id
        assert primary.client.hget("{poor:0}:state", "server") != "unknown"
