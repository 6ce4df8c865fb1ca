"""Cursors over several shards: a position on each shard, and a hash of the stream's channels.

The text is `.`, the six characters of the hash, then fifteen characters for each shard. The fifteen
characters are the epoch (six characters; the first is the shard's number) and the id in base 64 (nine
characters). A cursor over eight shards has 127 characters. A stream gets an event that lies on several shards
from only one of these shards. The channels of the stream decide from which shard. So a cursor is valid only
for the channels that its hash was made from.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from .channel import MAX_SHARDS
from .cursor import EARLIEST, LOST, MAX_ID, Cursor

#: Stands in place of the hash in a cursor that is valid for any channels. Such a cursor is the position of
#: the broker or of a worker, not of a stream.
ANY_CHANNELS = "------"
#: The five characters that stand for EARLIEST and for LOST. They stand in place of a shard's epoch, after the
#: shard's number.
_WORDS = {EARLIEST: "EARLY", LOST: "LOST-"}
_TEXTS = {word: text for text, word in _WORDS.items()}
_FIELD = 15
_GRAMMAR = re.compile(
    rf"\.([A-Za-z0-9_-]{{6}})((?:[0-7](?:[a-z0-9]{{5}}|EARLY|LOST-)[A-Za-z0-9_-]{{9}}){{1,{MAX_SHARDS}}})",
    re.ASCII,
)


class ShardCursor(NamedTuple):
    """A cursor with a position on each of several shards. `parts` is sorted by the shards' numbers."""

    channel_hash: str
    parts: tuple[Cursor, ...]

    def __str__(self) -> str:
        return f".{self.channel_hash}" + "".join([each.epoch + _base64(each.id) for each in self.parts])

    def texts(self) -> dict[int, str]:
        """Returns the position on each shard as the text of a cursor for this shard, by shard number."""
        return {int(each.epoch[0]): _TEXTS.get(each.epoch[1:]) or str(each) for each in self.parts}

    def earlier(self, seconds: float) -> ShardCursor:
        """Returns a cursor whose positions the shards reached at least `seconds` ago."""
        return self._replace(parts=tuple(each.earlier(seconds) for each in self.parts))


#: The cursor of a stream, whose channels lie on one shard or on several shards.
StreamCursor = Cursor | ShardCursor
#: The id up to which a stream has every event, by the number of the shard.
Position = Mapping[int, int]


def part(shard: int, text: str, cursor: Cursor) -> Cursor:
    """Returns the part of a ShardCursor for one shard.

    :param text: a cursor as text. If `text` is EARLIEST or LOST, the returned part has the same meaning.
    :param cursor: is returned for any other `text`.
    """
    word = _WORDS.get(text)
    return Cursor(f"{shard}{word}", 0) if word else cursor


def channel_hash(channels: Iterable[str]) -> str:
    """Returns six characters that identify a set of channels: the beginning of a BLAKE2 hash."""
    digest = blake2b("\n".join(sorted(channels)).encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()[:6]


@lru_cache(64)  # many streams start at the same cursor
def parse(text: str) -> ShardCursor | None:
    """Reads a cursor over several shards. Returns None if `text` is not such a cursor."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        return None
    fields = [match[2][at : at + _FIELD] for at in range(0, len(match[2]), _FIELD)]
    parts = tuple(Cursor(each[:6], _number(each[6:])) for each in fields)
    shards = [each.epoch[0] for each in parts]
    known = sorted(set(shards)) == shards and all(each.id <= MAX_ID for each in parts)
    return ShardCursor(match[1], parts) if known else None


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode((number << 2).to_bytes(7, "big")).decode()[:9]


def _number(digits: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(digits + "A=="), "big") >> 2
