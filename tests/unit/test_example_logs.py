"""The example follows its log file: it publishes every line once, also after rotation and truncation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from example_app.logs import logfile
from example_app.logs.tail import LONGEST_LINE, Follower, Tail
from flask_sse_push import BrokerUnavailable, MessageAnnouncer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.log"
    path.touch()
    return path


@pytest.fixture
def tail(file: Path) -> Iterator[Tail]:
    tail = Tail(file)
    yield tail
    tail.close()


def append(file: Path, text: str) -> None:
    with file.open("a") as output:
        output.write(text)


def texts(tail: Tail, most: int = 200) -> list[str]:
    return [line.text for line in tail.lines(most)]


def test_each_complete_line_is_returned_once(file: Path, tail: Tail) -> None:
    append(file, "one\ntwo\nthr")
    assert texts(tail) == ["one", "two"]
    assert texts(tail) == []
    append(file, "ee\n")
    assert texts(tail) == ["three"]


def test_a_read_returns_at_most_the_given_number_of_lines(file: Path, tail: Tail) -> None:
    append(file, "".join(f"{number}\n" for number in range(7)))
    assert [texts(tail, 3) for _ in range(4)] == [["0", "1", "2"], ["3", "4", "5"], ["6"], []]


def test_the_first_read_begins_near_the_end_of_a_long_file(file: Path) -> None:
    append(file, "".join(f"line {number}\n" for number in range(100)))
    tail = Tail(file, backlog=20)
    assert texts(tail) == ["line 98", "line 99"]
    tail.close()


def test_the_file_may_appear_later(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later.log")
    assert texts(tail) == []
    append(tmp_path / "later.log", "at last\n")
    assert texts(tail) == ["at last"]
    tail.close()


def test_rotation_loses_nothing_of_both_files(file: Path, tail: Tail) -> None:
    append(file, "before\n")
    assert texts(tail) == ["before"]
    old = file.rename(f"{file}.1")
    append(old, "a writer that has not noticed yet\n")
    assert texts(tail) == ["a writer that has not noticed yet"]
    assert texts(tail) == []  # the new file does not exist yet
    append(file, "first of the new\n")
    append(old, "a late one\n")
    assert texts(tail) == ["a late one"]
    assert texts(tail) == ["first of the new"]


def test_after_truncation_reading_starts_again(file: Path, tail: Tail) -> None:
    append(file, "a long line before\nand another\n")
    assert len(texts(tail)) == 2
    file.write_text("after\n")
    assert texts(tail) == ["after"]
    file.write_text("")
    assert texts(tail) == texts(tail) == []
    file.write_text("later\n")  # the same length as before
    assert texts(tail) == ["later"]
    file.write_text("again\n")
    assert texts(tail) == ["again"]
    file.write_text("at last\nand longer than before\n")
    assert texts(tail) == ["at last", "and longer than before"]


def test_lines_that_are_no_text_or_too_long_are_returned_too(file: Path, tail: Tail) -> None:
    file.write_bytes(b"\xff\xfe\n" + b"x" * (LONGEST_LINE + 5) + b"\n")
    assert texts(tail) == ["��", "x" * LONGEST_LINE, "xxxxx"]


def test_equal_lines_have_different_ids(file: Path, tail: Tail) -> None:
    append(file, "same\nsame\n")
    first = tail.lines()
    file.write_text("other\n")
    assert len({line.id for line in [*first, *tail.lines()]}) == 3


class Unreliable:
    """An announcer that sometimes fails. The broker may have stored the event nevertheless."""

    def __init__(self, fails: list[bool]) -> None:
        self.fails = fails
        self.stored: dict[str, Any] = {}

    def publish(self, data: Any, type: str, *, channel: str, id: str) -> str:
        self.stored[id] = data
        if self.fails and self.fails.pop(0):
            raise BrokerUnavailable("cut")
        return ""


def test_a_line_that_could_not_be_published_is_published_again_with_the_same_id(file: Path) -> None:
    append(file, "2026-01-02 03:04:05,678 WARNING some.where: hot: very\n  more of it\n")
    follower, announcer = Follower(file), Unreliable([False, True])
    with pytest.raises(BrokerUnavailable):
        follower(announcer)  # type: ignore[arg-type]
    follower(announcer)  # type: ignore[arg-type]
    follower.close()
    assert list(announcer.stored.values()) == [
        {"at": "2026-01-02 03:04:05,678", "level": "WARNING", "source": "some.where", "text": "hot: very"},
        {"at": "", "level": "WARNING", "source": "", "text": "  more of it"},
    ]


def test_the_longest_line_of_any_bytes_fits_into_an_event(file: Path) -> None:
    file.write_bytes(b"\xff" * LONGEST_LINE + b"\n" + b"\x00" * LONGEST_LINE + b"\n")
    announcer, follower = MessageAnnouncer.from_url("memory://"), Follower(file)
    follower(announcer)
    follower.close()
    announcer.close()


def test_after_a_rotation_the_loggers_write_to_the_new_file(file: Path, tail: Tail) -> None:
    logger = logging.getLogger("example_app")
    before = {name: logging.getLogger(name).handlers[:] for name in logfile.LOGGERS}
    gauges = {name: logging.getLogger(name).level for name in logfile.LOGGERS}
    try:
        logfile.write(file)
        logfile.write(file)
        logger.info("one")
        logfile.rotate(file, 1000)
        assert not Path(f"{file}.1").exists()
        logfile.rotate(file, 10)
        logger.info("two")
        assert [line.rpartition(" ")[2] for line in (*texts(tail), *texts(tail))] == ["two"]
        assert Path(f"{file}.1").read_text().endswith("INFO example_app: one\n")
    finally:
        for name in logfile.LOGGERS:
            for handler in set(logging.getLogger(name).handlers) - set(before[name]):
                logging.getLogger(name).removeHandler(handler)
                handler.close()
            logging.getLogger(name).setLevel(gauges[name])
