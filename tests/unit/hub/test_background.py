"""Threads that something ends are started again, and an exit that a signal asks for ends the process."""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from flask_sse_push.hub import background, tallies
from tests.support.deadline import eventually


class Greenlike(BaseException):
    """Stands for `gevent.Timeout` and `GreenletExit`, which are no Exceptions."""


ERRORS = [ValueError(), Greenlike(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]


@pytest.fixture(autouse=True)
def chained_ctrl_c() -> Iterator[None]:
    """Replaces Python's own handler of Ctrl-C, as WSGI servers do."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield
    signal.signal(signal.SIGINT, before)


class Body:
    """The body of a thread, which ends by an error each time until `close`."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.threads: list[threading.Thread] = []
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.threads.append(threading.current_thread())
        if len(self.threads) < 3 and self.error is not None:
            raise self.error
        self.go_on.wait(60)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_thread_that_something_ends_is_started_again(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    body = Body(error)
    tallies.take()
    background.start("test", body)
    eventually(lambda: len(body.threads) == 3)
    assert (
        len(set(body.threads)) == 3
    )  # whoever waits for the end of a killed greenlet does not wait for ever
    assert {thread.name for thread in body.threads} == {"flask-sse-push-test"}
    assert tallies.take() == {("thread_ends", "test"): 2}
    assert f"the thread test has ended by {error!r}" in caplog.text
    eventually(lambda: "test" not in background.ended())
    body.go_on.set()
    body.threads[-1].join(60)
    eventually(lambda: not any(thread.name == "test" for thread in background._threads))


def test_a_thread_that_keeps_ending_pauses_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.2)
    body = Body(Greenlike())
    background.start("test", body)
    eventually(lambda: background.ended() == ["test"])
    eventually(lambda: len(body.threads) == 3)
    eventually(lambda: background.ended() == [])
    body.go_on.set()


def test_a_thread_that_was_lost_is_started_again_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the handling of an error can prevent the start of the next thread."""
    body = Body(None)
    lost = background._Thread("test", body, True)
    monkeypatch.setattr(lost, "_run", lambda: None)
    lost.start()
    lost._thread.join(60)
    monkeypatch.undo()
    assert "test" in background.ended()
    eventually(lambda: len(body.threads) == 1)
    assert background.ended() == []
    body.go_on.set()


def test_a_thread_that_works_once_is_not_started_again() -> None:
    body = Body(Greenlike())
    background.start("test", body, repeat=False)
    eventually(lambda: bool(body.threads))
    body.threads[0].join(60)
    assert len(body.threads) == 1
    assert background.ended() == []


def test_a_thread_knows_that_it_is_one_of_ours() -> None:
    seen: list[bool] = []
    background.start("test", lambda: seen.append(background.is_own()), repeat=False)
    eventually(lambda: seen == [True])
    assert not background.is_own()


class Handler:
    def __call__(self, number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    def handle(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt


def leave(code: int, number: int, frame: FrameType | None) -> None:
    sys.exit(code)


@pytest.mark.parametrize(
    "handler",
    [Handler(), Handler().handle, functools.partial(leave, 1), lambda number, frame: sys.exit(0)],
    ids=["object", "method", "partial", "function"],
)
def test_an_exit_of_a_signal_handler_ends_the_process(
    handler: Callable[[int, FrameType | None], None],
) -> None:
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)) as raised:
            signal.raise_signal(signal.SIGUSR2)
    finally:
        after = signal.signal(signal.SIGUSR2, handler)
    assert after is handler
    assert background.ends_process(raised.value)
    signal.signal(signal.SIGUSR2, before)
    assert not background.ends_process(raised.value)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_exit_of_other_code_does_not_end_the_process(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        raise error
    assert not background.ends_process(raised.value)


def test_pythons_own_ctrl_c_ends_the_process() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as raised:
        signal.raise_signal(signal.SIGINT)
    assert background.ends_process(raised.value)


def test_the_end_of_a_thread_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    body = Body(Greenlike("why"))
    background.start("test", body, repeat=False)
    eventually(lambda: "its work is not done" in caplog.text)
    assert [record.levelno for record in caplog.records if record.name == background.__name__] == [
        logging.ERROR
    ]
    assert "Greenlike" in caplog.text
