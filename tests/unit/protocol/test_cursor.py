"""Cursors: browsers send them back unchanged, and text that is no cursor is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.protocol.cursor import EARLIEST, LOST, MAX_ID, MAX_LENGTH, Cursor, base36, parse

ids = st.one_of(st.integers(0, MAX_ID), st.integers(0, 5000))
epochs = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=16)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9, "9"),
        (10, "a"),
        (35, "z"),
        (36, "10"),
        (1295, "zz"),
        (1296, "100"),
        (46_655, "zzz"),
        (46_656, "1000"),
        (MAX_ID, "2gosa7pa2gv"),
    ],
)
def test_base_36_has_no_leading_zeros(number: int, text: str) -> None:
    assert base36(number) == text


@given(ids)
def test_base_36_is_what_int_reads(number: int) -> None:
    text = base36(number)
    assert int(text, 36) == number
    assert text == "0" or not text.startswith("0")


@given(epochs, ids)
def test_a_cursor_that_was_written_is_read_back(epoch: str, id: int) -> None:
    cursor = Cursor(epoch, id)
    assert parse(str(cursor)) == cursor
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", str(cursor))


def test_a_cursor_reads_epoch_and_id() -> None:
    assert str(Cursor("ab12", 1296)) == "ab12-100"
    assert parse("ab12-100") == ("ab12", 1296)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "ab",
        "ab-",
        "-1",
        "ab-01",
        "ab-00",
        "AB-1",
        "ab-A",
        "ab-1-2",
        "ab--1",
        "ab-1.cd-2",
        " ab-1",
        "ab-1 ",
        "ab-1\n",
        "ab-1\0",
        "ab-\u0661",
        "é-1",
        "x" * 17 + "-1",
        "ab-" + "z" * 11,
        "ab-" + "1" * 12,
        "?",
        "5",
        EARLIEST,
        LOST,
    ],
)
def test_other_text_is_no_cursor(text: str) -> None:
    assert parse(text) is None


def test_an_id_beyond_exact_doubles_is_no_cursor() -> None:
    assert parse(f"ab-{base36(MAX_ID)}") == Cursor("ab", MAX_ID)
    assert parse(f"ab-{base36(MAX_ID + 1)}") is None


@pytest.mark.parametrize("length", [MAX_LENGTH, MAX_LENGTH + 1, 100_000])
def test_a_long_text_is_no_cursor(length: int) -> None:
    assert parse("a" * (length - 2) + "-1") is None


@given(st.text())
def test_reading_any_text_never_raises(text: str) -> None:
    cursor = parse(text)
    assert cursor is None or str(cursor) == text
