"""Checksums of a text computed from the checksums of its parts."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from flask_sse_push.hub.checksum import shift


@given(st.binary(max_size=50), st.binary(max_size=2000))
def test_the_checksum_of_two_texts_follows_from_theirs(first: bytes, second: bytes) -> None:
    both = zlib.crc32(first + second)
    assert shift(zlib.crc32(first), len(second)) ^ zlib.crc32(second) == both


def test_a_text_of_any_length_may_follow() -> None:
    million = zlib.crc32(bytes(1_000_000))
    crc = zlib.crc32(b"x")
    assert shift(crc, 1_000_000) ^ million == zlib.crc32(b"x" + bytes(1_000_000))
    assert shift(shift(crc, 3 * 2**33), 2**33 + 5) == shift(crc, 2**35 + 5)
