"""Every kind of cursor, good and bad: FAULTS 11. A bad cursor gets a reset, and leaves no memory behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.protocol.cursor import Cursor, parse
from tests.e2e.conftest import Serve
from tests.support.deadline import eventually
from tests.support.fault_setup import Valkey, servers
from tests.support.memory import resident_kb
from tests.support.processes import Gunicorn, gunicorn
from tests.support.stream import Stream

HOSTILE = [
    "malformed",
    "-1",
    "9" * 40,
    "0-0",
    "abcd1234-zzzzzzzzzz",
    "٣-٣",
    "ünï-códe",
    "a b; c",
    "x" * 5000,
    "aaaaaaaa-" + "z" * 11,
    "lost",
    str(2**63),
    str(2**64 + 1),
    "x" * 8000,
]


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """A worker for tests that need no other settings. It keeps ten events of each channel."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    log = tmp_path_factory.mktemp("cursors") / "server.log"
    env = {"SSE_PUSH_BROKER_URL": valkey_url, "SSE_PUSH_HISTORY_SIZE": "10"}
    with gunicorn("tests.apps.plain:app", env=env, log=log) as running:
        yield running


@pytest.fixture
def announcer(valkey_url: str) -> Iterator[MessageAnnouncer]:
    announcer = MessageAnnouncer.from_url(valkey_url, SSE_PUSH_HISTORY_SIZE=10)
    yield announcer
    announcer.close()


def assert_reset(stream: Stream, channels: list[str]) -> None:
    assert stream.status == 200
    opened = stream.next()
    assert opened.type == "sse.open"
    assert opened.json()["resumed"] is False
    reset = stream.next()
    assert reset.type == "sse.reset"
    assert reset.json()["channels"] == channels
    assert parse(stream.cursor or "") is not None


CONTROLS = ["%00", "a%00b", "%0A%0Ddata:x", "%1B%7F%80", "%FF%FE"]


def test_malformed_cursors_get_a_reset_in_the_header_and_in_the_query(server: Gunicorn) -> None:
    for cursor in HOSTILE:
        header = cursor.encode("utf-8").decode("latin-1")
        with Stream(f"{server.url}/stream?channels=a,b", cursor=header) as stream:
            assert_reset(stream, ["a", "b"])
    # gunicorn refuses a request line of more than 4,094 bytes
    for quoted in [*CONTROLS, *(quote(cursor[:3000]) for cursor in HOSTILE)]:
        for name in ("last_event_id", "lastEventId"):
            with Stream(f"{server.url}/stream?channels=a,b&{name}={quoted}") as stream:
                assert_reset(stream, ["a", "b"])


def test_a_cursor_from_another_epoch_or_the_future_gets_a_reset_and_the_stream_goes_on(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    now = parse(announcer.publish("first", channel="a"))
    assert now is not None
    for odd in (Cursor("0" * 8, now.id), Cursor(now.epoch, now.id + 10**13)):
        with Stream(f"{server.url}/stream?channels=a", cursor=str(odd)) as stream:
            assert_reset(stream, ["a"])
            announcer.publish("next", channel="a")
            assert stream.next_of("message").data == "next"


def test_a_cursor_older_than_the_history_resets_only_the_channel_that_lost_events(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    cursor = announcer.publish("start", channel=["busy", "calm"])
    announcer.publish("kept", channel="calm")
    for n in range(12):
        announcer.publish(n, channel="busy")
    with Stream(f"{server.url}/stream?channels=busy,calm", cursor=cursor) as stream:
        opened = stream.next()
        assert opened.json()["resumed"] is False
        reset = stream.next()
        assert reset.json() == {"channels": ["busy"], "reason": "history"}
        assert stream.next().data == "kept"
        announcer.publish("live", channel="busy")
        assert stream.next().data == "live"


@pytest.mark.parametrize(("missed", "complete"), [(9, True), (10, True), (11, False)])
def test_the_history_size_is_exact(
    server: Gunicorn, announcer: MessageAnnouncer, missed: int, complete: bool
) -> None:
    channel = f"missed:{missed}"
    cursor = announcer.publish("seen", channel=channel)
    for n in range(missed):
        announcer.publish(n, channel=channel)
    with Stream(f"{server.url}/stream?channels={channel}", cursor=cursor) as stream:
        assert stream.next().json()["resumed"] is complete
        if complete:
            assert [event.json() for event in stream.take(missed)] == list(range(missed))
        else:
            assert stream.next().type == "sse.reset"


def test_a_cursor_is_valid_for_any_channels_and_the_header_wins_over_the_query(
    server: Gunicorn, announcer: MessageAnnouncer
) -> None:
    first = announcer.publish("first", channel="one")
    second = announcer.publish("second", channel="two")
    announcer.publish("third", channel="two")

    def first_events(query: str, cursor: str | None) -> tuple[bool, list[str]]:
        """Whether the stream resumed, and the events that it began with."""
        with Stream(f"{server.url}/stream?channels=two{query}", cursor=cursor) as stream:
            opened = stream.next_of("sse.open")
            announcer.publish("end", channel="two", ttl=0)
            found = iter(lambda: stream.next_of("message", "sse.reset").data, "end")
            return opened.json()["resumed"], list(found)

    assert first_events("", first) == (True, ["second", "third"]), "a cursor of an event on another channel"
    assert first_events("", second) == (True, ["third"])
    assert first_events(f"&last_event_id={first}", second) == (True, ["third"]), "the header wins"
    assert first_events(f"&last_event_id={first}", None) == (True, ["second", "third"])
    assert first_events("&last_event_id=earliest", None) == (False, ["second", "third"])
    assert first_events("", "earliest") == (False, ["second", "third"])
    assert first_events("", "") == (False, []), "an empty cursor is no cursor"
    assert first_events("", None) == (False, [])


def test_flushall_resets_every_client_and_none_stays_stuck(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    server = serve(workers=2, probe=0.5, heartbeat=1)
    announcer = MessageAnnouncer.from_url(empty_valkey)
    announcer.publish("before", channel="a")
    streams = [Stream(f"{server.url}/stream?channels=a,other") for _ in range(20)]
    cursors = [stream.next().id for stream in streams]
    with redis.Redis.from_url(empty_valkey) as client:
        client.flushall()
    announcer.publish("after", channel="a")
    for stream in streams:
        reset = stream.next_of("sse.reset")
        assert set(reset.json()["channels"]) == {"a", "other"}
        assert reset.json()["reason"] == "epoch"
    announcer.publish("later", channel="a")
    for stream in streams:
        assert next(event for event in stream if event.data == "later")
        stream.close()
    for cursor in cursors:
        with Stream(f"{server.url}/stream?channels=a", cursor=cursor) as stream:
            assert_reset(stream, ["a"])
            announcer.publish("live", channel="a")
            assert stream.next_of("message").data == "live"


def test_thousands_of_hostile_cursors_leave_nothing_behind(
    serve: Serve, http: httpx.Client, empty_valkey: str
) -> None:
    server = serve(
        "tests.apps.plain:app", "--worker-connections", "4000", max_streams=3000, heartbeat=0.5, retry=0.01
    )
    pid = server.worker_pids()[0]
    storm(server, 1000)
    eventually(lambda: http.get(f"{server.url}/stats").json()["streams"] == 0, 20)
    before = resident_kb(pid)
    client = redis.Redis.from_url(empty_valkey)
    errors = error_replies(client)
    grown = 10**9
    for _ in range(3):  # the allocator may grow once or twice, a leak grows each time
        if grown >= 1000:
            storm(server, 3000)
            eventually(lambda: http.get(f"{server.url}/stats").json()["streams"] == 0, 20)
            grown, before = resident_kb(pid) - before, resident_kb(pid)
            print(f"grown by {grown} kB")
    stats = http.get(f"{server.url}/stats").json()
    print(stats)
    assert grown < 1000
    assert stats["groups"] == 0
    assert stats["history_calls"] < 3000, "waiting clients must share the broker's replies"
    assert error_replies(client) == errors
    client.close()
    assert "Traceback" not in server.log.read_text()


def error_replies(client: redis.Redis) -> dict[str, object]:
    """How many error replies of each kind the broker has sent. Leaves out NOSCRIPT, which is normal."""
    counts = client.info("errorstats")
    return {kind: count for kind, count in counts.items() if kind != "errorstat_NOSCRIPT"}


def storm(server: Gunicorn, count: int) -> None:
    """Opens `count` streams with bad cursors from 8 threads, and closes each after its reset."""
    failures: list[object] = []

    def visit(numbers: range) -> None:
        chance = random.Random(numbers.start)
        for _ in numbers:
            odd = chance.choice([*HOSTILE[:5], str(Cursor(f"{chance.randrange(10**8):08}", 10**15))])
            try:
                with Stream(f"{server.url}/stream?channels=a", cursor=odd) as stream:
                    assert_reset(stream, ["a"])
                    stream.reset()
            except Exception as error:
                failures.append((odd, error))
                return

    threads = [threading.Thread(target=visit, args=(range(at, count, 8),)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_cursor_of_an_event_on_two_channels_counts_while_the_broker_takes_no_writes(
    valkey: Valkey, tmp_path: Path
) -> None:
    """The broker then makes no positions. So the event itself has the newest position."""
    with (
        servers(valkey.url, tmp_path, probe=0.5) as both,
        valkey.client() as client,
        closing(MessageAnnouncer.from_url(valkey.url)) as announcer,
    ):
        for server in both:
            address = f"{server.url}/stream?channels=a,b"
            with Stream(address) as stream:
                stream.next_of("sse.open")
                cursor = announcer.publish("first", channel=["a", "b"])
                client.config_set("min-replicas-to-write", "1")
                assert stream.next_of("message", "sse.reset").id == cursor
            with pytest.raises(BrokerUnavailable):
                announcer.publish("refused", channel="a")
            with Stream(address, cursor=cursor) as stream:
                assert stream.next_of("sse.open", "sse.error").json()["resumed"] is True
                client.config_set("min-replicas-to-write", "0")
                announcer.publish("second", channel="b")
                assert stream.next_of("message", "sse.reset").data == "second"
