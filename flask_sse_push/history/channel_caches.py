"""The channel caches of one shard: which channels are in use, and how much memory the caches may take."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..brokers.base import ENTRY_COST, UNBOUNDED
from ..config import ChannelPolicies
from .channel_cache import NOW, ChannelCache
from .pending_reads import PendingReads

#: How many of the newest entries a cache keeps when no stream has needed older ones for a while.
FRESH = 100


class ChannelCaches(ABC):
    """The channel caches of one shard. The caller holds the hub's lock.

    :param policies: say how many entries and bytes are kept for each channel.
    :param keep_bytes: at most how many bytes are kept for one channel.
    :param hold: about how many bytes are kept for all channels together.
    """

    def __init__(self, reads: PendingReads, policies: ChannelPolicies, keep_bytes: int, hold: int) -> None:
        self.caches: dict[str, ChannelCache] = {}
        self.idle: dict[str, float] = {}  # channels without streams: the monotonic time of the last `exit`
        self.reads = reads
        self._policies = policies
        self._keep_bytes = keep_bytes
        self._hold = hold
        self._dropped_at = 0.0  # the broker's clock at the last `_drop_ended`, in microseconds
        self._drop_every: float = max(0.5e6, policies.shortest_ttl * 1e4)
        # The caches take at most so many bytes: their cost when it was last counted, and all that came since.
        self._cost = 0
        self._filled: set[ChannelCache] = set()  # the caches whose `filled` is not 0

    @abstractmethod
    def clock(self) -> float:
        """Returns the time of the broker's clock in microseconds, or up to one round trip more than that."""

    def enter(self, name: str, after: int = NOW) -> bool:
        """Notes that one more stream uses a channel; returns whether the channel must be subscribed.

        :param after: the position after which the history is read if the channel is new.
        """
        cache = self.caches.get(name)
        if cache is None:
            policy = self._policies[name]
            # A frame has an `id:` line more than the body, whose bytes the policy limits.
            keep_bytes = min(self._keep_bytes, 2 * policy.bytes or self._keep_bytes)
            cache = self.caches[name] = ChannelCache(policy.history, keep_bytes, policy.ttl)
            cache.users = 1
            self.reads.join(name, after)
            return True
        if not cache.users:
            self.idle.pop(name, None)
        cache.users += 1
        return False

    def exit(self, name: str, now: float) -> None:
        """Notes that a stream does not use a channel any more.

        :param now: monotonic seconds; never less than in the call before.
        """
        cache = self.caches[name]
        cache.users -= 1
        if not cache.users:
            self.idle[name] = now

    def forget_idle(self, before: float) -> list[str]:
        """Drops the channels that no stream has used since the monotonic time `before`; returns them."""
        gone = []
        for name, since in self.idle.items():
            if since > before:  # `idle` is in the order of time: the rest became idle later still
                break
            gone.append(name)
        for name in gone:
            del self.idle[name], self.caches[name]
            self.reads.forget(name)
        return gone

    def tend(self) -> None:
        """Gives memory back. Called about once a second, unless the dispatch pauses."""
        self.trim()
        now = self.clock()
        if abs(now - self._dropped_at) >= self._drop_every:
            self._dropped_at = now
            self._drop_ended(now)
        for cache in list(self._filled):
            cache.filled -= 1
            if not cache.filled:
                self._filled.discard(cache)
                cache.trim(FRESH, UNBOUNDED)

    def note_filled(self, cache: ChannelCache) -> None:
        """Notes a cache that may have got older entries for one stream, so that `tend` drops them later."""
        if cache.filled:
            self._filled.add(cache)

    def _drop_ended(self, now: float) -> None:
        """Drops the entries of each channel whose time after the newest event is over.

        The broker has dropped them. So a stream gets entries from a cache at most about a second longer than
        from the broker, or 1 % of the shortest time that any policy sets.
        """
        for cache in self.caches.values():
            if cache.entries and cache.head + cache.ttl < now:
                cache.trim(0, 0)

    def trim(self) -> None:
        """If the caches take more memory than they may, drops the oldest entries of all channels.

        The caches then take at most half of what they may, so that the next trim is not due soon.
        """
        if self._cost <= self._hold:
            return
        caches = self.caches.values()
        self._cost = sum([cache.cost for cache in caches])
        if self._cost > self._hold:
            share = self._hold // 4 // sum(1 for cache in caches if cache.entries)
            for cache in caches:
                cache.trim(share // ENTRY_COST, share)
