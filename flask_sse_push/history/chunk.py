"""Chunks of missed events, shared by the streams that missed the same events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.entry import Entry

if TYPE_CHECKING:
    from .recovery_driver import Step


class MissedChunk:
    """Missed entries that are written in one go."""

    __slots__ = ("entries", "frames", "is_last", "limited", "position")

    def __init__(self, entries: list[Entry], position: int | None, is_last: bool) -> None:
        self.entries = entries
        self.position = position  # the stream's position after the chunk; None if the chunk does not move it
        self.is_last = is_last  # whether the stream has every missed event after this chunk
        self.limited = any(entry.exclude for entry in entries)  # whether an entry excludes some streams
        self.frames: dict[object, bytes] = {}  # for each format, the bytes that its streams share


#: The chunk for a stream that missed no events.
NO_CHUNK = MissedChunk([], None, True)


class ChunkCache:
    """Keeps the newest chunk of missed events for the next stream that needs the same chunk.

    When thousands of clients come back at once, most of them missed the same events. Most of these streams
    are complete after one step, so the newest step of this kind is kept too.
    """

    __slots__ = ("begin", "chunk", "key", "step")

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.chunk = NO_CHUNK
        self.begin: tuple[object, ...] | None = None  # with what the stream of `step` began
        self.step: Step | None = None
