"""Cursors: the position of a stream, written as the SSE `id:`.

A cursor looks like `<epoch>-<id in base 36>`. The id counts microseconds of the broker's clock, so a cursor
shows its age. The epoch is a random token that changes when the broker loses its data. It also changes after
a failover or a restart, which may have lost the newest events. Then positions of the old epoch stay valid up
to the last event that was surely kept, see `Lineage`. All other positions of an old epoch are no longer
valid.

Two words can stand in place of a cursor. EARLIEST means the position before the oldest event in the history.
LOST means a position that is no longer known; the server sends a reset to a client that resumes from LOST.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

#: How many characters a cursor may have. For a longer `Last-Event-ID` header, browsers would send a CORS
#: preflight request (Fetch standard: CORS-safelisted request-header).
MAX_LENGTH = 128
#: The highest id. Lua scripts in Redis use doubles, which represent higher whole numbers inexactly.
MAX_ID = 2**53 - 1

EARLIEST = "earliest"
LOST = "lost"

_GRAMMAR = re.compile(r"([a-z0-9]{1,16})-(0|[1-9a-z][0-9a-z]{0,10})", re.ASCII)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]


class Cursor(NamedTuple):
    """A position in the order of one shard. A stream at this position has every event up to `id`."""

    epoch: str
    id: int

    @lru_cache(64)  # noqa: B019 - at most 64 cursors; many streams start at the same cursor
    def __str__(self) -> str:
        return f"{self.epoch}-{base36(self.id)}"

    def earlier(self, seconds: float) -> Cursor:
        """Returns a position that the shard had reached `seconds` ago: ids grow no faster than the clock."""
        return self._replace(id=max(0, self.id - round(seconds * 1_000_000)))


#: For each earlier epoch whose older events the broker still has, the last position that is still valid.
#: After a failover or a restart, a new epoch begins because the newest events may be lost. The older events
#: are kept: the new epoch continues the old epoch up to this position.
Lineage = Mapping[str, int]


def belongs(cursor: Cursor, epoch: str, lineage: Lineage) -> bool:
    """Whether `cursor` is a valid position in `epoch`.

    A cursor of an earlier epoch is valid up to the position that `lineage` gives for this earlier epoch.
    """
    return cursor.epoch == epoch or cursor.id <= lineage.get(cursor.epoch, -1)


def base36(number: int) -> str:
    """Returns `number` in base 36, without leading zeros. `number` must not be negative."""
    high, pair = divmod(number, 1296)
    return _high_digits(high) + _PAIRS[pair] if high else _PAIRS[pair].lstrip("0") or "0"


#: Returns all digits but the last two. Events that are stored at about the same time share them.
_high_digits = lru_cache(maxsize=64)(base36)


@lru_cache(64)  # many streams start at the same cursor
def parse(text: str) -> Cursor | None:
    """Reads a cursor. Returns None if `text` is not a cursor; the client that sent it gets `sse.reset`."""
    if len(text) > MAX_LENGTH:
        return None
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        return None
    number = int(match[2], 36)
    return Cursor(match[1], number) if number <= MAX_ID else None
