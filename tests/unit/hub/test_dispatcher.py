"""The dispatcher: its inbox loses nothing, and a thread that is ended leaves its work to the next one."""

from __future__ import annotations

import threading
import time

import pytest

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.history.shards import ShardItem
from flask_sse_push.hub import dispatcher
from flask_sse_push.hub.dispatcher import Inbox
from flask_sse_push.hub.hub import Hub
from flask_sse_push.transports.generator import GeneratorStream
from tests.support.policies import keeping

#: Seconds that no wait takes here.
LONG = 30.0


def test_all_items_are_taken_at_once_and_in_order() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put((number, None))
    assert len(inbox) == 3
    assert inbox.take(LONG) == [(0, None), (1, None), (2, None)]
    assert (len(inbox), inbox.take(0)) == (0, [])


def test_take_waits_for_the_first_item() -> None:
    inbox = Inbox()
    thread = threading.Timer(0.05, inbox.put, [(0, None)])
    thread.start()
    assert inbox.take(LONG) == [(0, None)]
    thread.join()


def test_take_gives_up_after_its_timeout() -> None:
    began = time.monotonic()
    assert Inbox().take(0.05) == []
    assert 0.04 < time.monotonic() - began < LONG / 2


def test_a_wake_lets_take_return_without_an_item() -> None:
    inbox = Inbox()
    inbox.wake()
    began = time.monotonic()
    assert inbox.take(LONG) == []
    assert time.monotonic() - began < LONG / 2


def test_items_that_come_within_the_pause_are_taken_with_the_first_one() -> None:
    inbox = Inbox()
    inbox.put((0, None))
    thread = threading.Timer(0.05, inbox.put, [(1, None)])
    thread.start()
    assert inbox.take(LONG, coalesce=1.0) == [(0, None), (1, None)]
    thread.join()


def test_a_full_inbox_makes_its_readers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "MAX_INBOX", 2)
    inbox = Inbox()

    def read_link() -> None:
        for number in range(5):
            inbox.put((number, None))

    thread = threading.Thread(target=read_link)
    thread.start()
    taken: list[ShardItem] = []
    while len(taken) < 5:
        time.sleep(0.01)
        assert len(inbox) <= 2
        taken += inbox.take(LONG)
    thread.join(LONG)
    assert [number for number, _ in taken] == [0, 1, 2, 3, 4]


def test_no_item_of_several_threads_is_lost_or_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "MAX_INBOX", 3)
    inbox, count, threads = Inbox(), 2000, 4

    def read_link(thread: int) -> None:
        for number in range(count):
            inbox.put((thread, number))  # type: ignore[arg-type]

    readers = [threading.Thread(target=read_link, args=[thread]) for thread in range(threads)]
    for reader in readers:
        reader.start()
    taken: list[object] = []
    while len(taken) < count * threads:
        items = inbox.take(LONG)
        assert items, "items are left, but `take` returned none"
        taken += items
    for reader in readers:
        reader.join(LONG)
    for thread in range(threads):
        mine = [item for item in taken if isinstance(item, tuple) and item[0] == thread]
        assert mine == [(thread, number) for number in range(count)]


class Greenlike(BaseException):
    """Stands for `gevent.Timeout` and `GreenletExit`, which are no Exceptions."""


class Recorded(GeneratorStream):
    """A stream that records its last frame, and whose first chunk interrupts the dispatcher."""

    __slots__ = ("frames",)

    def write(self, chunk: bytes) -> None:
        raise Greenlike

    def end(self, frame: bytes) -> None:
        self.frames = [frame]
        super().end(frame)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub whose threads do not run."""
    hub = Hub(MemoryBroker(keeping(100, 60.0)), Settings(heartbeat=60))
    monkeypatch.setattr(hub, "_started", True)
    return hub


def opened(hub: Hub) -> Recorded:
    stream = Recorded("c", None, ("a",), Settings())
    hub.open(stream)
    return stream


def test_the_next_dispatcher_closes_streams_that_may_have_missed_a_chunk(hub: Hub) -> None:
    stream, run = opened(hub), hub._dispatcher
    run._callbacks.append(lambda: [lambda: stream.write(b"x")])
    hub._inbox.wake()
    with pytest.raises(Greenlike):
        run._run_round()
    assert not stream.ended
    run._repair()
    assert b'"reason":"error"' in stream.frames[0]
    assert len(hub._inbox) == 0
    assert not any(shard.reader._renews for shard in hub._shards.all)
    wheel = run.maintenance._wheel
    assert [stream for slot in wheel._slots.values() for stream in slot] == [stream]


def test_the_next_dispatcher_reads_all_channels_again_if_items_may_be_lost(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(items: object) -> None:
        raise Greenlike

    stream, run = opened(hub), hub._dispatcher
    hub._inbox.put((0, []))
    monkeypatch.setattr(run, "dispatch", interrupted)
    with pytest.raises(Greenlike):
        run._run_round()
    hub._inbox.put((0, []))
    run._repair()
    assert hub._inbox.take(0) == [(0, None), (0, [])]
    assert hub._shards.all[0].reader._renews
    assert stream.ended


def test_a_dispatcher_that_is_ended_while_it_waits_closes_nothing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(timeout: float, coalesce: float) -> None:
        raise Greenlike

    stream, run = opened(hub), hub._dispatcher
    monkeypatch.setattr(hub._inbox, "take", interrupted)
    with pytest.raises(Greenlike):
        run._run_round()
    run._repair()
    assert not stream.ended


def test_a_stream_that_cannot_be_closed_keeps_no_other_open(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(stream: Recorded, frame: bytes) -> None:
        raise OSError("no space left on device")

    first, second = opened(hub), GeneratorStream("d", None, ("a",), Settings())
    hub.open(second)
    monkeypatch.setattr(Recorded, "end", fail)
    hub._dispatcher.close_streams("error")
    assert second.ended
    assert f"stream {first.connection} could not be closed" in caplog.text
