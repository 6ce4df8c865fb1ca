"""One shard of the broker as a worker knows it: its caches, and the threads that fill them."""

from __future__ import annotations

from collections.abc import Callable

from ..brokers.base import Broker
from ..config import Settings
from ..protocol.cursor import Cursor
from .channel_cache import NOW
from .fetcher import HistoryFetcher
from .history_cache import HistoryCache, Item
from .link import LinkReader

#: What a reader or a fetcher brought, and where it belongs.
ShardItem = tuple[HistoryCache, Item]


class Shard:
    """One shard: what was seen of it, and what hears and asks."""

    def __init__(
        self, number: int, broker: Broker, inbox: str, put: Callable[[ShardItem], None], settings: Settings
    ) -> None:
        def deliver(item: Item) -> None:
            put((self.history_cache, item))

        self.number = number
        self.reader = LinkReader(broker, inbox, deliver, silence=2 * settings.probe)
        self.fetcher = HistoryFetcher(
            broker, inbox, deliver, settings.probe, expect_echo=self.reader.expect_echo
        )
        self.history_cache = HistoryCache(self.fetcher, settings.history_size, settings.replica_bytes)

    def enter(self, name: str, after: int = NOW) -> None:
        """Counts a stream that uses the channel.

        :param after: the position from which on its history is wanted as soon as it is subscribed.
        """
        if self.history_cache.enter(name, after):
            self.reader.subscribe([name])

    def told(self, at_least: int) -> Cursor:
        """Where streams stand that have had the event `at_least`."""
        snapshot = self.history_cache.told()
        return Cursor(snapshot.epoch, max(snapshot.position, at_least))
