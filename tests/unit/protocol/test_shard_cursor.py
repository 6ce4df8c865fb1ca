from __future__ import annotations

import re

import pytest

from flask_sse_push.protocol import cursor, shard_cursor
from flask_sse_push.protocol.cursor import EARLIEST, LOST, MAX_ID, Cursor
from flask_sse_push.protocol.shard_cursor import ANY_CHANNELS, ShardCursor, channel_hash, part

PARTS = (Cursor("08a1b2", 1_700_000_000_000_000), Cursor("38zzzz", MAX_ID), Cursor("78000a", 0))


def test_a_shard_cursor_reads_as_it_was_written() -> None:
    written = ShardCursor("AbC-_9", PARTS)
    assert shard_cursor.parse(str(written)) == written
    assert written.texts() == {0: str(PARTS[0]), 3: str(PARTS[1]), 7: str(PARTS[2])}


def test_eight_shards_fit_into_an_id_that_needs_no_preflight() -> None:
    text = str(ShardCursor(ANY_CHANNELS, tuple(Cursor(f"{n}8abcd", MAX_ID) for n in range(8))))
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text)
    assert shard_cursor.parse(text) is not None


@pytest.mark.parametrize("word", [EARLIEST, LOST])
def test_a_word_stands_for_a_position_without_a_number(word: str) -> None:
    text = str(ShardCursor(ANY_CHANNELS, (part(2, word, PARTS[0]), PARTS[1])))
    given = shard_cursor.parse(text)
    assert given is not None
    assert given.texts() == {2: word, 3: str(PARTS[1])}


def test_each_parser_refuses_the_other_kind_of_cursor() -> None:
    assert cursor.parse(str(ShardCursor(ANY_CHANNELS, PARTS))) is None
    assert shard_cursor.parse(str(PARTS[0])) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".------",
        ".-----08a1b2AAAAAAAAA",
        ".------08a1b2AAAAAAAA",
        ".------98a1b2AAAAAAAAA",
        ".------08A1b2AAAAAAAAA",
        ".------08a1b2AAAAAAAAA08a1b2AAAAAAAAA",
        ".------38a1b2AAAAAAAAA08a1b2AAAAAAAAA",
        ".------08a1b2_________",
        ".------08a1b2AAAAAAAAA\n",
        ".------" + "08a1b2AAAAAAAAA" * 9,
    ],
)
def test_other_text_is_no_shard_cursor(text: str) -> None:
    assert shard_cursor.parse(text) is None


def test_the_hash_is_that_of_a_set_of_channels() -> None:
    assert channel_hash(["a", "b"]) == channel_hash(["b", "a"])
    assert (
        len(
            {
                channel_hash([]),
                channel_hash(["a"]),
                channel_hash(["b"]),
                channel_hash(["a", "b"]),
                channel_hash(["ab"]),
                ANY_CHANNELS,
            }
        )
        == 6
    )
    assert len(channel_hash(["a"])) == 6


def test_an_earlier_shard_cursor_is_earlier_on_each_shard() -> None:
    assert ShardCursor(ANY_CHANNELS, PARTS).earlier(2).parts[0].id == PARTS[0].id - 2_000_000
    assert ShardCursor(ANY_CHANNELS, PARTS).earlier(2).parts[2].id == 0
