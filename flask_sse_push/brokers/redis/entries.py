"""Reads the entries that a script returned. Other programs may have written into the lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ...protocol.cursor import Cursor, Lineage, belongs
from ...protocol.entry import Entry

_LINEAGE_WORD = re.compile(rb"([a-z0-9]+):([0-9]{1,16})\b")


class StoredEntries(NamedTuple):
    """The entries of one list, in the order of their ids.

    `problem` says what is wrong with the first item that is not an entry; "" if all items are entries. The
    item may have replaced an entry: entries at or before the position `unread` may be missing.
    """

    entries: list[Entry]
    unread: int = 0
    problem: str = ""


def parse_lineage(text: bytes) -> Lineage:
    """Reads the lineage that state.lua wrote: `<epoch>:<last valid position> …`. Ignores other words."""
    return {epoch.decode(): int(last) for epoch, last in _LINEAGE_WORD.findall(text)}


def parse_entries(channel: str, items: Sequence[bytes], now: Cursor, lineage: Lineage) -> StoredEntries:
    """Returns the entries among `items` that belong to the current epoch.

    Entries of earlier epochs that `lineage` says are still valid belong to the current epoch too.

    :param now: the broker's epoch and newest position. A later entry was not written by the broker.
    """
    entries: list[Entry] = []
    unread, problem, broken = 0, "", False
    for number, item in enumerate(items, 1):
        try:
            entry = Entry.parse(item, channel)
            if not belongs(entry.position, now.epoch, lineage):
                continue
            _check_order(entry, entries, now.id)
        except ValueError as error:
            broken = True
            problem = problem or f"item {number} of {len(items)}, {item[:40]!r}: {error}"
            continue
        if broken:
            unread, broken = entry.id - 1, False
        entries.append(entry)
    return StoredEntries(entries, now.id if broken else unread, problem)


def _check_order(entry: Entry, before: Sequence[Entry], last: int) -> None:
    if entry.id > last or abs(entry.prev) >= entry.id:
        raise ValueError(f"the ids {entry.id} and {entry.prev} are not valid at the position {last}")
    if before and entry.id <= before[-1].id:
        raise ValueError(f"the id {entry.id} follows the higher id {before[-1].id}")
