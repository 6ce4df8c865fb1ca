"""The room for missed events: how many bytes of them a worker may hold beside its channel caches."""

from __future__ import annotations

from collections.abc import Callable

from ..brokers import native_threads


class Room:
    """The bytes that pages and replies of the broker may take in one worker. Any thread may call the methods.

    :param size: how many bytes all shares together may have.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0  # how many bytes the shares have now
        #: Called when a share was given back.
        self.on_return: list[Callable[[], None]] = []
        self._lock = native_threads.lock()

    def take(self, size: int) -> Share | None:
        """Takes `size` bytes of the room. Returns None if they do not fit. An empty room fits any size."""
        with self._lock:
            if self.taken and self.taken + size > self.size:
                return None
            self.taken += size
        return Share(self, size)

    def take_always(self, size: int) -> Share:
        """Takes `size` bytes of the room, even if they do not fit. Others then wait for room."""
        with self._lock:
            self.taken += size
        return Share(self, size)

    def change(self, difference: int) -> None:
        """Adds `difference` to the taken bytes. Only shares call this."""
        with self._lock:
            self.taken += difference
        if difference < 0:
            for returned in self.on_return:
                returned()


class Share:
    """Some bytes of a room. The room gets the bytes back when nothing refers to the share any more."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    def resize(self, size: int) -> None:
        """Changes how many bytes the share takes to `size`, which the events really have."""
        self._room.change(size - self._size)
        self._size = size

    def __del__(self) -> None:
        if self._size:
            self._room.change(-self._size)
