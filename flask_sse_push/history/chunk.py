"""Chunks of missed events, shared by the streams that missed the same events."""

from __future__ import annotations

from ..protocol.entry import Entry


class MissedChunk:
    """Missed entries that are written in one go."""

    __slots__ = ("entries", "frames", "is_last", "limited", "position")

    def __init__(self, entries: list[Entry], position: int | None, is_last: bool) -> None:
        self.entries = entries
        self.position = position  # a stream that gets the chunk has everything up to here; None: no change
        self.is_last = is_last  # whether nothing more was missed
        self.limited = any(entry.exclude for entry in entries)  # whether some are not for every stream
        self.frames: dict[object, bytes] = {}  # the bytes for streams that may have all, by their format


#: For a stream that missed nothing.
NO_CHUNK = MissedChunk([], None, True)


class ChunkCache:
    """The newest chunk: when thousands of clients come back at once, most of them missed the same events."""

    __slots__ = ("chunk", "key")

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.chunk = NO_CHUNK
