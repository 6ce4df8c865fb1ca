"""Where the bytes of one stream go. The transports say how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .group import Group


class Sink(ABC):
    """One open stream. `write` is called by the hub's dispatching thread alone, and never blocks."""

    __slots__ = ("channels", "connection", "group", "place", "touched", "user_id")

    def __init__(self, connection: str, user_id: str | None, channels: tuple[str, ...]) -> None:
        self.connection = connection
        self.user_id = user_id
        self.channels = channels
        self.group: Group | None = None  # set while it takes part in the fan-out
        self.place = 0  # where it stands in its group
        self.touched = 0.0  # monotonic time of the last chunk that went to this sink alone

    def is_excluded(self, exclude: frozenset[str]) -> bool:
        """Whether an event is kept from this stream, by its connection id or its user's id."""
        return bool(exclude) and (self.connection in exclude or self.user_id in exclude)

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Takes whole frames. Does nothing when the stream has ended."""

    @abstractmethod
    def end(self, frame: bytes) -> None:
        """Ends the stream in good order after `frame`. Does nothing when it has ended."""

    @abstractmethod
    def is_stuck(self, now: float) -> bool:
        """Whether the client has taken nothing for longer than it may."""

    @abstractmethod
    def cut(self) -> None:
        """Breaks the connection of a client that does not read."""
