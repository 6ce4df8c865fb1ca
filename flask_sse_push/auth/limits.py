"""Limits how many streams one user or one address may open, and how often they may try.

The limits apply to all workers together. While the broker does not answer, each worker counts only its own
streams, and does not count attempts. So no client is refused because the broker is down.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import ipaddress
import logging
import random
import re
import time
from typing import TYPE_CHECKING

from ..brokers.base import Broker
from ..brokers.counts import CountKey
from ..brokers.foreign import ForeignData
from ..config import Settings
from ..errors import BrokerUnavailable, ConfigError, ErrorCode, Refused
from ..presence.worker_counts import Reservation, WorkerCounts
from ..protocol.frames import jittered_ms

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

logger = logging.getLogger(__name__)

#: How long a request waits for the counts of the other workers, in seconds.
COUNTS_TIMEOUT = 0.25
#: After the broker failed to count an attempt to connect, attempts are not counted for this many seconds.
RATES_PAUSE = 5.0
#: Seconds until a client that was refused because of too many streams may try again, on average.
RETRY_AFTER = 5.0
#: A user id or address with more bytes than this is replaced by its hash in the broker's keys.
MAX_NAME = 100
#: IPv6 addresses count as one address if their first IPV6_PREFIX bits are the same. A household usually gets
#: a network of this size.
IPV6_PREFIX = 64
#: The name under which all clients are counted whose IP address is not known, for example those that connect
#: through a Unix socket.
UNKNOWN = "unknown"
_WITH_PORT = re.compile(r"(?P<v4>[0-9.]+):[0-9]{1,5}|\[(?P<v6>[^]]+)\](?::[0-9]{1,5})?", re.ASCII)
#: Prefix of the names of the count tables for open streams: `streams:user` and `streams:address`.
TABLE = "streams:"
#: What a client attempts. Attempts of each kind are counted apart, with the same limits.
CONNECT, CHANGE = "connect", "join or leave channels"


class Limits:
    """Applies the limits in one worker. Two attributes say which limits the settings switch on:

    - `counts_streams`: whether the number of open streams is limited; only then call `reserve`;
    - `counts_attempts`: whether the attempts to connect are limited; only then call `count_attempt`.
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
        self._rates_paused_until = 0.0  # monotonic time until which attempts are not counted
        self._foreign = ForeignData()
        self._reported = False  # whether the log has an error about a client without an IP address

    def count_attempt(self, kind: str, name: str | None, action: str = CONNECT) -> None:
        """Counts one attempt to connect, or to change channels. Blocks until the broker answers.

        :param kind: `user` or `address`.
        :param name: the id of the user, or the address; if None, nothing is counted.
        :param action: CONNECT or CHANGE. Each action has counts of its own.
        :raises Refused: 429, if the limit is reached. A refused attempt does not count against the limit.
        """
        rate, limiter = self._rates.get(kind), self._limiter
        if rate is None or limiter is None or time.monotonic() < self._rates_paused_until:
            return
        name = self._counted_name(kind, name)
        if name is None:
            return
        from limits.errors import StorageError

        try:
            if limiter.hit(rate, kind, action, name):
                return
            reset: float = limiter.get_window_stats(rate, kind, action, name).reset_time
        except (StorageError, ValueError) as error:
            if _is_damaged(error):  # other users and addresses have other keys
                self._foreign.report(f"the key with the attempts of {kind} {name!r}", str(error))
                return
            logger.warning(
                "attempts have no limit for %g s, as the broker counts none: %s", RATES_PAUSE, error
            )
            self._rates_paused_until = time.monotonic() + RATES_PAUSE
            return
        # The wait is random, so that clients that were refused together do not all come back together.
        wait = max(1.0, reset - time.time()) * random.uniform(1, 1.5)
        raise _too_many(f"too many attempts to {action} by this {kind}", kind, wait)

    def reserve(self, user_id: str | None, address: str | None) -> Reservation | None:
        """Counts the stream for its user and its address. Returns a reservation; None if no limit applies.

        The reservation is what the stream has added to the counts. Releasing it subtracts it again. Blocks
        for at most COUNTS_TIMEOUT seconds.

        :raises Refused: 429, if the user or the address already has as many streams as the limit allows. The
            new stream is then not counted.
        """
        limits = {
            CountKey(TABLE + kind, name): self._max_streams[kind]
            for kind, named in (("user", user_id), ("address", address))
            if self._max_streams[kind] and (name := self._counted_name(kind, named)) is not None
        }
        if not limits:
            return None
        with contextlib.ExitStack() as held:  # gives the place back if anything interrupts the wait
            reservation = self._worker_counts.reserve(limits)
            held.callback(
                self._worker_counts.hurry
            )  # the other workers should soon stop counting this stream
            held.callback(reservation.release)
            totals = self._totals(reservation, limits)
            for key, limit in limits.items():
                if totals[key] > limit:
                    kind = key.table.removeprefix(TABLE)
                    found = f"this {kind} already has {limit} open streams"
                    message = f"{found}, which is the limit; close one first"
                    raise _too_many(message, kind, jittered_ms(RETRY_AFTER) / 1000)
            held.pop_all()
        return reservation

    def _totals(self, reservation: Reservation, limits: dict[CountKey, int]) -> dict[CountKey, int]:
        """Returns how many streams each user or address in `limits` has on all workers together.

        Counts only this worker's streams if they already exceed a limit, or if the broker does not answer.
        """
        here = reservation.here
        if any(here[key] > limit for key, limit in limits.items()):
            return here
        try:
            return reservation.totals(COUNTS_TIMEOUT)
        except BrokerUnavailable:
            return here

    def _counted_name(self, kind: str, name: str | None) -> str | None:
        """Returns the text that stands for a user or an address in the broker's keys.

        Returns None if there is no user.
        """
        if kind == "address":
            given, name = name, network(name)
            if name == UNKNOWN and not self._reported:
                self._reported = True
                logger.error(
                    "a client's address is %.60r, which is not an IP address: all such clients share one "
                    "limit. Behind a proxy, set app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1), and let the "
                    "proxy send X-Forwarded-For",
                    given,
                )
        return None if name is None else _short(name)


def check(settings: Settings) -> None:
    """Checks that the library `limits` is installed, if the settings limit the attempts to connect.

    :raises ConfigError: if the settings need the library and it is not installed.
    """
    for name in ("rate_per_user", "rate_per_address"):
        rate = getattr(settings, name)
        if rate and importlib.util.find_spec("limits") is None:
            expected = "empty, unless the extra is installed: pip install flask-sse-push[limits]"
            raise ConfigError(Settings.key(name), rate, expected)


def network(address: str | None) -> str:
    """Returns the name under which an address is counted.

    An IPv4 address is its own name. All IPv6 addresses of one network share the network's name. A port behind
    the address is ignored. All clients whose address is unknown share the name UNKNOWN.
    """
    try:
        found = ipaddress.ip_address(_without_port(address or ""))
    except ValueError:
        return UNKNOWN
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, IPV6_PREFIX), strict=False))


def _without_port(address: str) -> str:
    """Returns the IP address in a text such as `192.0.2.1:80`, `[2001:db8::1]:80` or `[2001:db8::1]`."""
    match = _WITH_PORT.fullmatch(address.strip())
    return address.strip() if match is None else match["v4"] or match["v6"]


def _short(name: str) -> str:
    """Returns `name`, or its hash if `name` has more than MAX_NAME bytes."""
    clean = name.encode("utf-8", "backslashreplace")
    return clean.decode() if len(clean) <= MAX_NAME else hashlib.sha256(clean).hexdigest()


def _is_damaged(error: Exception) -> bool:
    """Whether an attempt cannot be counted because another program has written into its key."""
    from ..brokers.redis.refusals import is_damage

    return isinstance(error, ValueError) or is_damage(error.__cause__ or error.__context__)


def _parsed_rate(rate: str) -> RateLimitItem:
    import limits

    return limits.parse(rate)


def _rate_limiter(broker: Broker) -> RateLimiter:
    """Returns an object that counts attempts to connect in a sliding window of time.

    The counts lie in Redis; with `memory://` they lie in this process.
    """
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
