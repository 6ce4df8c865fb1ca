"""Cursors: the position of a stream, written as the SSE `id:`.

A cursor reads `<epoch>-<id in base 36>`. The id counts microseconds of the broker's clock, so a cursor shows
its age. The epoch is a random token that changes when the broker loses its data, so a position from before
the loss is never compared with one from after it. Two words stand for positions without a number: EARLIEST
asks for all kept history; LOST is a position that no stream has, so the server always sends a reset for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

#: Longer ids, or ids with other characters, make browsers send a CORS preflight (Fetch, CORS-unsafe
#: request-header byte rules for Last-Event-ID).
MAX_LENGTH = 128
#: Ids above this are not exact in Lua's doubles.
MAX_ID = 2**53 - 1

EARLIEST = "earliest"
LOST = "lost"

_GRAMMAR = re.compile(r"([a-z0-9]{1,16})-(0|[1-9a-z][0-9a-z]{0,10})", re.ASCII)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]


class Cursor(NamedTuple):
    """A position in the history of one shard: its owner has seen everything up to and including `id`."""

    epoch: str
    id: int

    @lru_cache(64)  # noqa: B019 - bounded; thousands of streams may begin at the same position
    def __str__(self) -> str:
        return f"{self.epoch}-{base36(self.id)}"

    def earlier(self, seconds: float) -> Cursor:
        """A position that the shard had passed `seconds` ago: ids never grow faster than its clock."""
        return self._replace(id=max(0, self.id - round(seconds * 1_000_000)))


#: The earlier epochs that an epoch continues, each with the last position that both have in common.
Lineage = Mapping[str, int]


def belongs(cursor: Cursor, epoch: str, lineage: Lineage) -> bool:
    """Whether `cursor` is a position of `epoch`, or of an earlier epoch before `epoch` parted from it."""
    return cursor.epoch == epoch or cursor.id <= lineage.get(cursor.epoch, -1)


def base36(number: int) -> str:
    """Writes `number`, which is not negative, in base 36 without leading zeros."""
    pairs = []
    while number >= 1296:
        number, pair = divmod(number, 1296)
        pairs.append(_PAIRS[pair])
    pairs.append(_PAIRS[number])
    return "".join(reversed(pairs)).lstrip("0") or "0"


def parse(text: str) -> Cursor | None:
    """Reads a cursor; None when `text` is not one. The client then gets `sse.reset`."""
    if len(text) > MAX_LENGTH:
        return None
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        return None
    number = int(match[2], 36)
    return Cursor(match[1], number) if number <= MAX_ID else None
