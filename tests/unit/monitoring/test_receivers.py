"""Receivers of signals: called in order in threads of their own, whatever they raise and however long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blinker import NamedSignal
from flask import Flask, current_app, has_request_context

from flask_sse_push.hub import background, callbacks, tallies
from flask_sse_push.hub.drain import at_exit
from flask_sse_push.monitoring import receivers
from tests.support.deadline import eventually


class Greenlike(BaseException):
    """Stands for `gevent.Timeout` and `GreenletExit`, which are no Exceptions."""


@pytest.fixture(autouse=True)
def fresh_records() -> Iterator[None]:
    callbacks._logged.clear()
    tallies.take()
    yield
    eventually(lambda: not receivers._waiting)
    tallies.take()


@pytest.fixture
def signal() -> NamedSignal:
    return NamedSignal("test-signal")


@pytest.fixture
def app() -> Flask:
    return Flask("shop")


@pytest.fixture
def slow(signal: NamedSignal) -> Iterator[Slow]:
    receiver = Slow()
    signal.connect(receiver)
    yield receiver
    receiver.go_on.set()


class Slow:
    """A receiver that waits until `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.numbers: list[int] = []

    def __call__(self, sender: Flask, number: int) -> None:
        self.go_on.wait(60)
        self.numbers.append(number)


def test_calls_come_in_order_in_an_app_context_of_another_thread(app: Flask, signal: NamedSignal) -> None:
    seen: list[Any] = []

    @signal.connect
    def receiver(sender: Flask, number: int) -> None:
        own = background.is_own() and threading.current_thread() is not threading.main_thread()
        seen.append((number, sender is app, current_app.name, has_request_context(), own))

    with app.test_request_context():
        for number in range(50):
            receivers.send(app, signal, number=number)
    eventually(lambda: len(seen) == 50)
    assert seen == [(number, True, "shop", False, True) for number in range(50)]


@pytest.mark.parametrize("error", [ValueError(), Greenlike(), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_an_error_is_counted_and_the_next_call_is_made(
    app: Flask, signal: NamedSignal, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    @signal.connect
    def receiver(sender: Flask, number: int) -> None:
        seen.append(number)
        raise error

    for number in range(3):
        receivers.send(app, signal, number=number)
    eventually(lambda: not receivers._waiting)
    assert seen == [0, 1, 2]
    assert tallies.take() == {("callback_errors", "test-signal"): 3}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "receiver" in record.getMessage()


def test_a_receiver_that_hangs_holds_up_no_other(app: Flask, signal: NamedSignal, slow: Slow) -> None:
    seen: list[int] = []

    @signal.connect
    def quick(sender: Flask, number: int) -> None:
        seen.append(number)

    began = time.monotonic()
    for number in range(20):
        receivers.send(app, signal, number=number)
    assert time.monotonic() - began < 30
    eventually(lambda: seen == list(range(20)))
    assert slow.numbers == []
    slow.go_on.set()
    eventually(lambda: slow.numbers == list(range(20)))


def test_calls_beyond_the_bound_are_left_out_and_counted(
    app: Flask,
    signal: NamedSignal,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(receivers, "MAX_WAITING", 5)
    for number in range(20):
        receivers.send(app, signal, number=number)
    dropped = tallies.take()["callbacks_dropped", "test-signal"]
    assert dropped in (14, 15)  # the first call may have left the queue before the sixth came
    assert [record.name for record in caplog.records].count(receivers.__name__) == 1
    assert "Slow of the signal test-signal is too slow" in caplog.text
    slow.go_on.set()
    eventually(lambda: not receivers._waiting)
    assert slow.numbers == list(range(20 - dropped))


def test_a_thread_ends_when_its_calls_are_made(app: Flask, signal: NamedSignal, slow: Slow) -> None:
    def running() -> int:
        return sum(thread.name == "flask-sse-push-receiver" for thread in threading.enumerate())

    receivers.send(app, signal, number=1)
    eventually(lambda: running() == 1)
    slow.go_on.set()
    eventually(lambda: running() == 0)
    receivers.send(app, signal, number=2)
    eventually(lambda: slow.numbers == [1, 2])


def test_no_call_is_lost_between_a_thread_that_ends_and_the_next(app: Flask, signal: NamedSignal) -> None:
    seen: list[int] = []

    @signal.connect
    def receiver(sender: Flask, number: int) -> None:
        seen.append(number)

    def send(first: int) -> None:
        for number in range(300):
            receivers.send(app, signal, number=first + number)

    threads = [threading.Thread(target=send, args=[1000 * number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    eventually(lambda: len(seen) == 1200)
    for thread_number in range(4):
        first = 1000 * thread_number
        mine = [number for number in seen if first <= number < first + 1000]
        assert mine == [first + number for number in range(300)]


def test_a_coroutine_may_be_a_receiver(app: Flask, signal: NamedSignal) -> None:
    seen: list[int] = []

    @signal.connect
    async def receiver(sender: Flask, number: int) -> None:
        seen.append(number)

    app.ensure_sync = _run_coroutine  # type: ignore[method-assign, assignment]  # Flask's own needs asgiref
    receivers.send(app, signal, number=7)
    eventually(lambda: seen == [7])


def _run_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*values: Any, **facts: Any) -> None:
        with pytest.raises(StopIteration):
            function(*values, **facts).send(None)

    return run


def test_a_muted_signal_is_sent_to_nobody(app: Flask, signal: NamedSignal, slow: Slow) -> None:
    with signal.muted():
        receivers.send(app, signal, number=1)
    assert not receivers._waiting


def test_a_process_that_cannot_start_a_thread_leaves_the_call_out(
    app: Flask, signal: NamedSignal, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    receivers.send(app, signal, number=1)
    monkeypatch.undo()
    assert tallies.take() == {("callbacks_dropped", "test-signal"): 1}
    background._threads.clear()
    slow.go_on.set()
    receivers.send(app, signal, number=2)
    eventually(lambda: slow.numbers == [2])


def test_a_process_that_ends_waits_for_the_calls_but_not_for_ever(
    app: Flask,
    signal: NamedSignal,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receivers.send(app, signal, number=1)
    receivers.send(app, signal, number=2)
    assert receivers._finish in at_exit
    monkeypatch.setattr(receivers, "LAST_CALLS", 0.05)
    receivers._finish()
    assert "before 2 calls of the receiver" in caplog.text
    monkeypatch.setattr(receivers, "LAST_CALLS", 60.0)
    threading.Timer(0.05, slow.go_on.set).start()
    receivers._finish()
    assert slow.numbers == [1, 2]
