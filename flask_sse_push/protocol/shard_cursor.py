"""Cursors over several shards: a position on each shard, and a hash of the channels they are for.

The text is `.`, the six characters of the hash, then fifteen characters for each shard: its epoch (six; the
first is the shard's number) and the id in base 64. Eight shards make 127 characters. An event on several
shards reaches a stream from one of them, and the stream's channels decide which. So a cursor is valid only
for the channels it was made for.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from .channel import MAX_SHARDS
from .cursor import EARLIEST, LOST, MAX_ID, Cursor

#: The hash in a cursor that is valid for any channels: no stream's position, but a probe's.
ANY_CHANNELS = "------"
#: Stand in place of an epoch, after the shard's number, for the positions without a number.
_WORDS = {EARLIEST: "EARLY", LOST: "LOST-"}
_TEXTS = {word: text for text, word in _WORDS.items()}
_FIELD = 15
_GRAMMAR = re.compile(
    rf"\.([A-Za-z0-9_-]{{6}})((?:[0-7](?:[a-z0-9]{{5}}|EARLY|LOST-)[A-Za-z0-9_-]{{9}}){{1,{MAX_SHARDS}}})",
    re.ASCII,
)


class ShardCursor(NamedTuple):
    """A position on each of several shards, in the order of the shards' numbers."""

    channel_hash: str
    parts: tuple[Cursor, ...]

    def __str__(self) -> str:
        return f".{self.channel_hash}" + "".join([each.epoch + _base64(each.id) for each in self.parts])

    def texts(self) -> dict[int, str]:
        """For each shard, by its number, the cursor as that shard alone would write it."""
        return {int(each.epoch[0]): _TEXTS.get(each.epoch[1:]) or str(each) for each in self.parts}

    def earlier(self, seconds: float) -> ShardCursor:
        """A position that every shard had passed `seconds` ago."""
        return self._replace(parts=tuple(each.earlier(seconds) for each in self.parts))


#: The cursor of a stream, over one shard or several.
StreamCursor = Cursor | ShardCursor
#: For each shard, by its number, the id up to which a stream has every event.
Position = Mapping[int, int]


def part(shard: int, text: str, cursor: Cursor) -> Cursor:
    """The part of a ShardCursor for one shard: `cursor`, or `text` when it is EARLIEST or LOST."""
    word = _WORDS.get(text)
    return Cursor(f"{shard}{word}", 0) if word else cursor


def channel_hash(channels: Iterable[str]) -> str:
    """Six characters that identify a set of channels."""
    digest = blake2b("\n".join(sorted(channels)).encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()[:6]


def parse(text: str) -> ShardCursor | None:
    """Reads a cursor over several shards; None when `text` is not one."""
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
