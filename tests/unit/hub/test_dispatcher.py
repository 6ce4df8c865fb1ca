"""The dispatcher: link readers dispatch in its place; a thread that is ended leaves its work to the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.config import Settings
from flask_sse_push.hub import dispatcher
from flask_sse_push.hub.hub import Hub
from flask_sse_push.protocol.channel import BROADCAST
from flask_sse_push.transports.generator import GeneratorStream
from tests.support.policies import keeping
from tests.support.simulation import Arrival, World
from tests.support.stepping import Turn


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
    assert hub._inbox.take() == [(0, None), (0, [])]
    assert hub._shards.all[0].reader._renews
    assert stream.ended


def test_a_dispatcher_that_is_ended_while_it_waits_closes_nothing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(timeout: float, coalesce: float) -> None:
        raise Greenlike

    stream, run = opened(hub), hub._dispatcher
    monkeypatch.setattr(hub._inbox, "wait", interrupted)
    with pytest.raises(Greenlike):
        run.run()
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


# -- in the thread of a link reader -----------------------------------------------------------------------


class Listening(World):
    """A worker with a stream on the channel `a`. Its dispatcher waits, and its link reader takes steps."""

    def __init__(self) -> None:
        super().__init__()
        for client in (0, 1):
            self.open(Arrival(client, 0, ("a",), "live", None, False))
        for _ in range(4):
            self.run_all()
        assert self.clients[0].joined
        self.hub = self.workers[0].hub
        self.stream = self.clients[0].stream

    def read(self) -> int:
        """Lets the link reader read all that has arrived. Returns how many events the stream has got."""
        before = len(self.stream.cursors)
        self.threads(0).read(Turn())
        return len(self.stream.cursors) - before


@pytest.fixture
def worker(simulation: None) -> Listening:
    return Listening()


def test_a_link_reader_dispatches_an_event_at_once(worker: Listening) -> None:
    worker.publish([(("a",), (), None)])
    assert worker.read() == 1
    assert len(worker.hub._inbox) == 0
    worker.publish([(("a",), (), None), (("b",), (), None), (("a", "c"), (), None)])
    assert worker.read() == 2
    worker.settle()


def has_turn(worker: Listening) -> None:
    worker.hub._dispatcher.turn.acquire()


def has_items(worker: Listening) -> None:
    worker.hub._inbox.put((0, []))


def has_callbacks(worker: Listening) -> None:
    worker.hub.call_soon(lambda: [])


def has_changes(worker: Listening) -> None:
    worker.hub._channel_changes.under_way["c"] = None  # type: ignore[assignment]


def has_left_steps(worker: Listening) -> None:
    worker.hub._dispatcher._handed_over = [lambda: None]


def must_repair(worker: Listening) -> None:
    worker.hub._dispatcher._writing = True


@pytest.mark.parametrize(
    "is_busy", [has_turn, has_items, has_callbacks, has_changes, has_left_steps, must_repair]
)
def test_events_wait_in_the_inbox_while_the_dispatcher_has_other_work(
    worker: Listening, is_busy: Callable[[Listening], None]
) -> None:
    is_busy(worker)
    worker.publish([(("a",), (), None)])
    before = len(worker.hub._inbox)
    assert worker.read() == 0
    assert len(worker.hub._inbox) == before + 1


def many_events(worker: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.publish([(("a",), (), None)] * (dispatcher.MAX_DIRECT + 1))


def a_crowd(worker: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "MAX_DIRECT_STREAMS", 1)
    worker.publish([((BROADCAST,), (), None)])


def a_command(worker: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.publish([(("a",), (), None)])
    worker.change(0, ["b"], [], "live")


@pytest.mark.parametrize("publish", [many_events, a_crowd, a_command])
def test_the_dispatcher_takes_what_would_keep_a_link_reader_from_its_link(
    worker: Listening,
    monkeypatch: pytest.MonkeyPatch,
    publish: Callable[[Listening, pytest.MonkeyPatch], None],
) -> None:
    publish(worker, monkeypatch)
    assert worker.read() == 0
    assert len(worker.hub._inbox) == 1
    worker.settle()


def test_a_link_reader_leaves_effects_to_the_dispatcher(
    worker: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = worker.hub._dispatcher, list[str]()
    steps = run.dispatch
    worker.hub._inbox.take()
    with monkeypatch.context() as patched:
        patched.setattr(run, "dispatch", lambda items: [*steps(items), lambda: told.append("effect")])
        worker.publish([(("a",), (), None)])
        assert worker.read() == 0
    assert run._inbox._filled.is_set()
    assert told == []
    run._run_round()
    assert told == ["effect"]
    assert worker.stream.account.has_all()


def test_an_interrupted_link_reader_leaves_the_repair_to_the_dispatcher(
    worker: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(steps: object) -> None:
        raise Greenlike

    run = worker.hub._dispatcher
    worker.hub._inbox.take()
    with monkeypatch.context() as patched:
        patched.setattr(run, "deliver", interrupted)
        worker.publish([(("a",), (), None)])
        with pytest.raises(Greenlike):
            worker.read()
    assert run._inbox._filled.is_set()
    assert not run.turn.locked()
    closed = list[str]()
    monkeypatch.setattr(run, "close_streams", closed.append)
    run._repair()
    assert closed == ["error"]


def test_a_failure_in_a_link_reader_is_logged_and_repaired(
    worker: Listening, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(items: object) -> None:
        raise OSError("no space left on device")

    run = worker.hub._dispatcher
    worker.hub._inbox.take()
    with monkeypatch.context() as patched:
        patched.setattr(run, "dispatch", fail)
        worker.publish([(("a",), (), None)])
        worker.read()
    assert "the dispatcher failed" in caplog.text
    assert run._inbox._filled.is_set()
    assert not run.turn.locked()
    run._repair()
    assert worker.hub._shards.all[0].reader._renews


def test_a_batch_that_a_link_reader_has_begun_wakes_the_dispatcher(simulation: None) -> None:
    worker = Listening()
    worker.open(Arrival(2, 0, ("d",), "live", None, False))
    for _ in range(4):
        worker.run_all()
    worker.hub._inbox.take()
    worker.publish([(("d",), (), None)])
    worker.read()
    assert worker.hub._fanout.batches.next_due < float("inf")
    assert worker.hub._inbox._filled.is_set()
    worker.settle()
