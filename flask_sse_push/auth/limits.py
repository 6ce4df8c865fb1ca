"""How much one user or one address may have, over all workers: open streams, and attempts in a time.

When the broker does not answer, a worker counts its own streams only, and no attempts: a broken broker keeps
nobody out.
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
COUNTS_TIMEOUT = 0.25
#: Seconds for which attempts are not counted after the broker failed to count one.
RATES_PAUSE = 5.0
#: Seconds after which a client with too many streams may try again, on average.
RETRY_AFTER = 5.0
#: Bytes of a name in the broker's keys. In place of a longer name stands its hash.
MAX_NAME = 100
#: Length of the IPv6 networks that count as one address: what one household gets.
IPV6_PREFIX = 64
#: Begins the names of the count tables for open streams; `user` or `address` follows.
TABLE = "streams:"


class Limits(StreamListener):
    """The limits of one worker. A request asks them only as far as the attributes say:

    - `counts_streams`: whether a user or an address may have only so many streams;
    - `counts_attempts`: whether a user or an address may try to connect only so often.
    """

    def __init__(self, settings: Settings, worker_counts: WorkerCounts, broker: Broker) -> None:
        self._max_streams = {
            "user": settings.max_streams_per_user,
            "address": settings.max_streams_per_address,
        }
        self._rates = {
            kind: _parsed_rate(rate)
            for kind, rate in (("user", settings.rate_per_user), ("address", settings.rate_per_address))
            if rate
        }
        self.counts_streams = any(self._max_streams.values())
        self.counts_attempts = bool(self._rates)
        self._worker_counts = worker_counts
        self._limiter = _rate_limiter(broker) if self._rates else None
        self._rates_paused_until = 0.0  # monotonic time

    def count_attempt(self, kind: str, name: str | None) -> None:
        """Counts one attempt to connect. Blocks until the broker answers.

        :param kind: `user` or `address`.
        :param name: the id of the user, or the address; None is not counted.
        :raises Refused: 429, when this attempt was one too many. Such an attempt is not counted.
        """
        rate, limiter = self._rates.get(kind), self._limiter
        if rate is None or limiter is None or time.monotonic() < self._rates_paused_until:
            return
        name = _counted_name(kind, name)
        if name is None:
            return
        from limits.errors import StorageError

        try:
            if limiter.hit(rate, kind, name):
                return
            reset: float = limiter.get_window_stats(rate, kind, name).reset_time
        except StorageError as error:
            logger.warning("attempts to connect are not counted for %g s: %s", RATES_PAUSE, error)
            self._rates_paused_until = time.monotonic() + RATES_PAUSE
            return
        # Clients that are refused together must not come back together.
        wait = max(1.0, reset - time.time()) * random.uniform(1, 1.5)
        raise _too_many(f"too many attempts to connect by this {kind}", kind, wait)

    def reserve(self, stream: Stream) -> Lease | None:
        """Counts `stream` for its user and its address, until the lease is released. Returns the lease; None
        if no limit applies. Blocks for COUNTS_TIMEOUT at most.

        :raises Refused: 429, when the user or the address has as many as allowed. Then nothing is counted.
        """
        limits = {
            CountKey(TABLE + kind, name): self._max_streams[kind]
            for kind, named in (("user", stream.user_id), ("address", stream.address))
            if self._max_streams[kind] and (name := _counted_name(kind, named)) is not None
        }
        if not limits:
            return None
        lease = self._worker_counts.lease(limits)
        totals = self._totals(lease, limits)
        for key, limit in limits.items():
            if totals[key] > limit:
                lease.release()
                self._worker_counts.hurry()  # else this attempt counts when the client tries another worker
                kind = key.table.removeprefix(TABLE)
                message = f"this {kind} has {limit} streams already; close one first"
                raise _too_many(message, kind, jittered_ms(RETRY_AFTER) / 1000)
        return lease

    def _totals(self, lease: Lease, limits: dict[CountKey, int]) -> dict[CountKey, int]:
        """Returns the counts of all workers; of this worker, if these are over a limit already, or if the
        broker does not answer."""
        here = lease.here
        if any(here[key] > limit for key, limit in limits.items()):
            return here
        try:
            return lease.totals(COUNTS_TIMEOUT)
        except BrokerUnavailable:
            return here

    def closed(self, stream: Stream) -> None:
        if stream.lease is not None:
            stream.lease.release()


def check(settings: Settings) -> None:
    """Checks that the library `limits` is installed if the settings need it.

    :raises ConfigError: when it is not.
    """
    for name in ("rate_per_user", "rate_per_address"):
        rate = getattr(settings, name)
        if rate and importlib.util.find_spec("limits") is None:
            expected = "empty, unless the extra is installed: pip install flask-sse-push[limits]"
            raise ConfigError(Settings.key(name), rate, expected)


def network(address: str | None) -> str | None:
    """Returns the text under which an address counts: an IPv4 address itself, the network of an IPv6
    address; None for a Unix socket and for anything that is no address."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, IPV6_PREFIX), strict=False))


def _counted_name(kind: str, name: str | None) -> str | None:
    """Returns the name of a user or an address as it stands in the broker's keys; None if it does not
    count."""
    name = network(name) if kind == "address" else name
    return None if name is None else _short(name)


def _short(name: str) -> str:
    """Returns `name`, or its hash if it is long."""
    clean = name.encode("utf-8", "backslashreplace")
    return clean.decode() if len(clean) <= MAX_NAME else hashlib.sha256(clean).hexdigest()


def _parsed_rate(rate: str) -> RateLimitItem:
    import limits

    return limits.parse(rate)


def _rate_limiter(broker: Broker) -> RateLimiter:
    """Returns what counts attempts in a sliding window: in Redis, or in this process for `memory://`."""
    from limits.storage import MemoryStorage, RedisStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    if broker.pool is None:
        return SlidingWindowCounterRateLimiter(MemoryStorage())
    storage = RedisStorage(
        "redis://", connection_pool=broker.pool, key_prefix=f"{broker.base}rate", wrap_exceptions=True
    )
    return SlidingWindowCounterRateLimiter(storage)


def _too_many(message: str, kind: str, wait: float) -> Refused:
    return Refused(429, ErrorCode.RATE_LIMIT_EXCEEDED, message, details={"per": kind}, retry_after=wait)
