"""Whatever a function of the app raises, it is counted, logged once with its name, and goes no further."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from flask_sse_push.hub import background, callbacks, tallies
from flask_sse_push.hub.callbacks import CallbackFailed, calling, name_of
from tests.support.deadline import eventually


class Greenlike(BaseException):
    """Stands for `gevent.Timeout` and `GreenletExit`, which are no Exceptions."""


def rule(error: BaseException) -> None:
    raise error


@pytest.fixture(autouse=True)
def fresh_records() -> Iterator[None]:
    callbacks._logged.clear()
    tallies.take()
    yield
    tallies.take()


def in_own_thread(function: Any) -> Any:
    """Returns what `function` returns or raises in a thread of the package."""
    results: list[Any] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    background.start("test", body, repeat=False)
    eventually(lambda: bool(results))
    return results[0]


def own(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Returns what the module has logged. Threads of earlier tests may log too."""
    return [record for record in caplog.records if record.name == callbacks.__name__]


def failing(error: BaseException) -> None:
    with calling("authorize", rule):
        rule(error)


@pytest.mark.parametrize("error", [ValueError("x"), Greenlike(), SystemExit(), GeneratorExit()], ids=repr)
def test_every_error_in_a_thread_of_ours_is_the_callbacks(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    raised = in_own_thread(partial(failing, error))
    assert isinstance(raised, CallbackFailed)
    assert raised.__cause__ is raised.error is error
    assert tallies.take() == {("callback_errors", "authorize"): 1}
    (record,) = own(caplog)
    assert record.getMessage() == f"the app's authorize {__name__}.rule raised {error!r}"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_elsewhere_an_error_that_is_no_exception_may_be_the_callers() -> None:
    with pytest.raises(CallbackFailed):
        failing(ValueError())
    with pytest.raises(Greenlike):
        failing(Greenlike())
    with pytest.raises(CallbackFailed), calling("receiver", rule, whatever=True):
        rule(Greenlike())


def test_a_callback_is_logged_once_and_counted_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        with pytest.raises(CallbackFailed):
            failing(ValueError())
    assert len(own(caplog)) == 1
    assert tallies.take() == {("callback_errors", "authorize"): 5}
    monkeypatch.setattr(callbacks, "QUIET", 0.0)
    with pytest.raises(CallbackFailed):
        failing(ValueError())
    assert "4 more failures" in own(caplog)[1].getMessage()


def test_a_callback_in_a_callback_is_counted_once() -> None:
    with pytest.raises(CallbackFailed) as raised, calling("app context", rule):
        failing(ValueError())
    assert "authorize" in str(raised.value)
    assert tallies.take() == {("callback_errors", "authorize"): 1}


def test_the_record_of_logged_callbacks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MAX_REMEMBERED", 3)
    for number in range(10):
        with pytest.raises(CallbackFailed), calling(f"kind {number}", rule):
            rule(ValueError())
        assert len(callbacks._logged) <= 3


class Shop:
    def may_listen(self) -> None:
        """A method that an app may register."""

    def __call__(self) -> None:
        """An object that an app may register."""


def _load_active(load: Any, id: str) -> None:
    """Calls the app's loader, as `auth/flask_login.py` does."""


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (rule, "rule"),
        (Shop().may_listen, "Shop.may_listen"),
        (Shop(), "Shop"),
        (partial(rule, ValueError()), "rule"),
        (partial(partial(_load_active, rule), "7"), "rule"),
    ],
)
def test_the_name_is_that_of_the_apps_function(callback: Any, name: str) -> None:
    assert name_of(callback) == f"{__name__}.{name}"


def test_labels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MAX_LABELS", 2)
    monkeypatch.setattr(tallies, "_labels", set())
    for label in ("a", "b", "c", "d", "a"):
        tallies.add("callback_errors", label)
    assert tallies.take() == {
        ("callback_errors", "a"): 2,
        ("callback_errors", "b"): 1,
        ("callback_errors", "other"): 2,
    }


def test_counts_from_several_threads_are_all_taken_once() -> None:
    def count() -> None:
        for _ in range(1000):
            tallies.add("thread_ends", "test")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = 0
    while any(thread.is_alive() for thread in threads):
        taken += sum(tallies.take().values())
    assert taken + sum(tallies.take().values()) == 4000
