"""How much one user or one address may have: open streams, and attempts in a time, over all workers.

When the broker does not answer, this worker goes by what it holds itself: nobody is kept out by the fault.
"""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import logging
import random
import time
from typing import TYPE_CHECKING

from ..brokers.base import Broker
from ..brokers.counts import CountKey
from ..config import Settings
from ..errors import BrokerUnavailable, ConfigError, ErrorCode, Refused
from ..hub.listener import StreamListener
from ..hub.stream import Stream
from ..presence.worker_counts import Lease, WorkerCounts
from ..protocol.frames import jittered_ms

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

logger = logging.getLogger(__name__)

#: Seconds that a request waits for the counts of the other workers.
PATIENCE = 0.25
#: Seconds after a failure in which the broker is not asked about rates.
BREAK = 5.0
#: Seconds after which a client that holds too much may try again, on average.
AGAIN = 5.0
#: Characters of a name in the broker's keys; a longer one stands there as its hash.
MAX_NAME = 100
#: IPv6 networks this long or longer belong to one household.
IPV6_PREFIX = 64


class Limits(StreamListener):
    """The quotas of one worker. Only `admit` and `seat` block."""

    def __init__(self, settings: Settings, worker_counts: WorkerCounts, broker: Broker) -> None:
        self._most = {
            "user": settings.max_streams_per_user,
            "address": settings.max_streams_per_address,
        }
        self._streams_count = any(self._most.values())
        self._addresses_count = bool(settings.max_streams_per_address or settings.rate_per_address)
        self._worker_counts = worker_counts
        self._rates = Rates(settings, broker)

    def address(self, remote: str | None) -> str | None:
        """What counts as the address of a request, when addresses count at all."""
        return network(remote) if self._addresses_count else None

    def admit(self, kind: str, name: str | None) -> None:
        """Counts an attempt of a user or an address; None is not counted.

        :raises Refused: 429, when there were too many.
        """
        wait = None if name is None else self._rates.hit(kind, _short(name))
        if wait is not None:
            raise _too_much(f"too many attempts to connect by this {kind}", kind, wait)

    def reserve(self, user: str | None, address: str | None) -> Lease | None:
        """Takes a place for a stream, until it is released; None when nobody counts.

        :raises Refused: 429, when the user or the address holds as many as allowed. Nothing is taken then.
        """
        if not self._streams_count:
            return None
        names = {"user": user, "address": address}
        kinds = {
            CountKey(f"streams:{kind}", _short(name)): kind
            for kind, name in names.items()
            if name is not None and self._most[kind]
        }
        if not kinds:
            return None
        lease = self._worker_counts.lease(kinds)
        for key, total in self._totals(lease).items():
            kind = kinds[key]
            if total > self._most[kind]:
                lease.release()
                self._worker_counts.hurry()  # until told, it keeps out who tries another worker
                message = f"this {kind} has {self._most[kind]} streams already"
                raise _too_much(message, kind, jittered_ms(AGAIN) / 1000)
        return lease

    def _totals(self, lease: Lease) -> dict[CountKey, int]:
        """What all workers hold; what this one does, when that is too much already or all that is known."""
        here = lease.here
        if any(count > self._most[key.table.partition(":")[2]] for key, count in here.items()):
            return here
        try:
            return lease.totals(PATIENCE)
        except BrokerUnavailable:
            return here

    def closed(self, stream: Stream) -> None:
        if stream.lease is not None:
            stream.lease.release()


class Rates:
    """Attempts in a sliding window, counted by the library `limits` where the events are kept."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self._broker = broker
        self._items = {
            "user": _item(settings.rate_per_user),
            "address": _item(settings.rate_per_address),
        }
        self._limiter = _limiter(broker) if any(self._items.values()) else None
        self._resume_at = 0.0  # monotonic time

    def hit(self, kind: str, name: str) -> float | None:
        """Counts an attempt; the seconds to wait when it was one too many, which is not counted."""
        item = self._items[kind]
        if item is None or self._limiter is None or time.monotonic() < self._resume_at:
            return None
        from limits.errors import StorageError

        try:
            if self._limiter.hit(item, kind, name):
                return None
            reset: float = self._limiter.get_window_stats(item, kind, name).reset_time
        except StorageError as error:
            logger.warning("attempts to connect are not counted for %g s: %s", BREAK, error)
            self._resume_at = time.monotonic() + BREAK
            return None
        # Those who were refused together must not come back together.
        return max(1.0, reset - time.time()) * random.uniform(1, 1.5)


def check(settings: Settings) -> None:
    """:raises ConfigError: when a rate is set and what counts it is not installed."""
    for name in ("rate_per_user", "rate_per_address"):
        rate = getattr(settings, name)
        if rate and importlib.util.find_spec("limits") is None:
            expected = "empty, unless the extra is installed: pip install flask-sse-push[limits]"
            raise ConfigError(Settings.key(name), rate, expected)


def network(address: str | None) -> str | None:
    """What counts as one address: an IPv4 address, or the IPv6 network of a household; None for a Unix
    socket."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found.packed, IPV6_PREFIX), strict=False))
    return str(found)


def _item(rate: str) -> RateLimitItem | None:
    if not rate:
        return None
    import limits

    return limits.parse(rate)


def _limiter(broker: Broker) -> RateLimiter:
    from limits.storage import MemoryStorage, RedisStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    if broker.pool is None:
        return SlidingWindowCounterRateLimiter(MemoryStorage())
    storage = RedisStorage(
        "redis://", connection_pool=broker.pool, key_prefix=f"{broker.base}rate", wrap_exceptions=True
    )
    return SlidingWindowCounterRateLimiter(storage)


def _short(name: str) -> str:
    """A name as it may stand in a key, whatever it is."""
    clean = name.encode("utf-8", "backslashreplace")
    return clean.decode() if len(clean) <= MAX_NAME else hashlib.sha256(clean).hexdigest()


def _too_much(message: str, kind: str, wait: float) -> Refused:
    return Refused(429, ErrorCode.RATE_LIMIT_EXCEEDED, message, details={"per": kind}, retry_after=wait)
