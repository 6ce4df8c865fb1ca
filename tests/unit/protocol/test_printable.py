"""What a terminal would obey is escaped, and what people read is not."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from flask_sse_push.protocol.printable import printable

#: Characters that change the direction of writing.
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x7f\x80\x9b31m", "\\x7f\\x80\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud83d", "\\ud83d"),
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "Zürich 東京\u3000駅 😀",
        "👩\u200d👩\u200d👧",
        "שלום",
        "क\u200d्ष",
        "e\u0301",
        "5\xa0€",
        "\\",
    ],
)
def test_readable_text_stays(text: str) -> None:
    assert printable(text) == text


def test_of_all_characters_no_control_character_passes() -> None:
    escaped = [chr(code) for code in range(sys.maxunicode + 1) if printable(chr(code)) != chr(code)]
    dangerous = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cs")
    ]
    assert {*dangerous, *BIDI} <= {*escaped}
    assert all(printable(each).isascii() for each in escaped)
