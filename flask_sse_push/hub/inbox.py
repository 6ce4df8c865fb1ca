"""The inbox: items from link readers and history fetchers that wait for the dispatcher."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from ..history.shards import ShardItem

#: At most how many items wait in the inbox. While it is full, link readers wait. An item of a link reader has
#: the messages of one read, about `READ_ROOM` bytes at most.
MAX_INBOX = 100


class Inbox:
    """The items from link readers and history fetchers that wait for the dispatcher, in order of arrival."""

    def __init__(self) -> None:
        self.items: deque[ShardItem] = deque()
        self._filled = threading.Event()  # set when an item was added, and by `wake`
        self._room = threading.Event()  # set when `take` has made room for more items

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: ShardItem) -> None:
        """Adds an item. Any thread may call. Blocks while `MAX_INBOX` items wait."""
        while len(self.items) >= MAX_INBOX:
            self._room.clear()
            if len(self.items) >= MAX_INBOX:
                self._room.wait()
        self.items.append(item)
        if not self._filled.is_set():
            self._filled.set()

    def put_first(self, items: Iterable[ShardItem]) -> None:
        """Adds items that `take` returns before all others, the last of them first. Does not block.

        Only the dispatcher calls this.
        """
        self.items.extendleft(items)
        self._filled.set()

    def wake(self) -> None:
        """Makes `wait` return at once. Any thread may call."""
        self._filled.set()

    def wait(self, timeout: float, coalesce: float = 0.0) -> None:
        """Waits for the first item, or for a call of `wake`. Only the dispatcher calls this.

        :param timeout: how long to wait for the first item, in seconds.
        :param coalesce: how long to wait for more items after the first, in seconds. The more items are taken
            together, the fewer chunks are written.
        """
        if not self.items:
            self._filled.wait(timeout)
        if coalesce and self.items:
            time.sleep(coalesce)

    def take(self) -> list[ShardItem]:
        """Removes and returns all items, at most `MAX_INBOX`. Only the dispatcher calls this."""
        self._filled.clear()  # clear before taking: `put` adds an item, then sets the flag
        items = []
        for _ in range(min(len(self.items), MAX_INBOX)):
            items.append(self.items.popleft())
        self._room.set()
        return items
