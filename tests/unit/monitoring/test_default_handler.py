"""Where the app configures no logging, log lines have time, level and logger. None is written twice."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator

import pytest

from flask_sse_push.config import Settings
from flask_sse_push.monitoring import log

NAME = "flask_sse_push.part"


@contextlib.contextmanager
def unconfigured() -> Iterator[None]:
    """Takes all handlers from the loggers above `NAME`, and from gunicorn's; gives them back afterwards."""
    loggers = [logging.getLogger(name) for name in (None, "flask_sse_push", NAME, "gunicorn.error")]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.handlers.clear()
    log.set_up(Settings())
    log.set_up(Settings())
    try:
        yield
    finally:
        for each, handlers, level, propagate in before:
            each.handlers[:], each.propagate = handlers, propagate
            each.setLevel(level)


def handler(text: str = "app: %(message)s") -> tuple[logging.Handler, io.StringIO]:
    made = logging.StreamHandler(stream := io.StringIO())
    made.setFormatter(logging.Formatter(text))
    return made, stream


def test_without_any_configuration_the_line_goes_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured():
        logging.getLogger(NAME).error("lost %d", 3)
        logging.getLogger(NAME).info("not shown by default")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"\[[-0-9 :,]+\] ERROR in {re.escape(NAME)}: lost 3", line)


def test_under_gunicorn_the_line_goes_to_its_error_log_with_its_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, stream = handler("[%(levelname)s] %(message)s")
    gunicorn = logging.getLogger("gunicorn.error")
    with unconfigured():
        gunicorn.addHandler(made)
        gunicorn.propagate = False
        gunicorn.setLevel(logging.ERROR)
        logging.getLogger(NAME).error("lost %d", 3)
        logging.getLogger(NAME).warning("below the level of gunicorn's log")
    assert stream.getvalue() == f"[ERROR] {NAME}: lost 3\n"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("where", [None, "flask_sse_push", NAME])
def test_the_apps_own_handler_wins_also_if_it_comes_later(
    where: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    made, stream = handler()
    of_gunicorn, unused = handler()
    with unconfigured():
        logging.getLogger(where).addHandler(made)
        logging.getLogger("gunicorn.error").addHandler(of_gunicorn)
        logging.getLogger(NAME).error("lost")
    assert stream.getvalue() == "app: lost\n"
    assert unused.getvalue() + capsys.readouterr().err == ""
