"""Checks the broker: whether the app can publish and listen, and how Redis is configured."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from ...brokers.base import Broker, Echo, Link
from ...brokers.redis.broker import RedisBroker
from ...brokers.redis.rights import Missing, missing_rights
from ...brokers.redis.surroundings import Surroundings, surroundings
from ...brokers.redis.trial import has_state, open_link, send_echo
from ...brokers.url import serves_one_process
from ...config import Settings, without_secret
from ...errors import BrokerUnavailable
from ..time_limit import UNREADABLE
from .finding import Finding, ok, warning
from .policies import examine_policies
from .redis_facts import check_facts
from .unreachable import explain, rights, unknown_command, without_advice

#: A probe that takes at least this many seconds is slow.
SLOW = 0.05
#: How long to wait for a probe's echo, in seconds.
PROBE_TIMEOUT = 3.0
#: The doctor writes a key to see whether Redis takes writes. The key expires after this many seconds.
WRITTEN_FOR = 1.0
#: At most how many seconds the newest event may be ahead of Redis' clock.
AHEAD = 1.0


def examine_broker(broker: Broker, settings: Settings, *, around: bool = True) -> Iterator[Finding]:
    """Yields findings about the broker. Blocks for many small calls to Redis. The key that it writes
    disappears after `WRITTEN_FOR` seconds.

    :param around: whether to look for events of other processes, with other settings.
    """
    if serves_one_process(settings):
        yield ok("broker", "memory:// keeps events in one process")
        return
    missing = _missing(broker, settings)
    if missing is not None and missing.rules:
        yield rights(missing)
        return
    if missing is not None and missing.unknown:
        yield unknown_command(settings, missing.unknown)
        return
    try:
        seconds = max([_probe_time(shard) for shard in broker.shards])
        for shard in broker.shards:
            shard.claim(f"doctor-{secrets.token_hex(4)}", WRITTEN_FOR)
    except (BrokerUnavailable, *UNREADABLE) as error:
        yield explain(error, settings)
        return
    yield _speed(without_secret(settings.broker_url), seconds)
    try:
        facts = broker.inspect()
    except (BrokerUnavailable, *UNREADABLE) as error:
        yield warning(
            "broker",
            f"the commands INFO and CONFIG GET failed: {without_advice(str(error))}",
            "the doctor cannot check the configuration of Redis",
            "allow these commands, or check the configuration by hand",
        )
        return
    yield from check_facts(facts, time.time())
    if around:
        yield from _around(broker, settings)


def _missing(broker: Broker, settings: Settings) -> Missing | None:
    """Returns which rights the Redis user lacks; None if the broker does not tell, or does not answer."""
    waits = settings.wait_replicas > 0
    try:
        for shard in broker.shards:
            if isinstance(shard, RedisBroker):
                found = missing_rights(shard, settings.prefix, waits=waits)
                if found.rules or found.unknown:
                    return found
    except (BrokerUnavailable, *UNREADABLE):
        pass  # the next check finds the same fault and explains it
    return None


def _probe_time(broker: Broker) -> float:
    """Returns how many seconds a probe took from this process to the broker and back.

    A probe that comes back proves that commands, scripts and pub/sub work.

    :raises BrokerUnavailable: if a call fails, or the echo does not arrive within `PROBE_TIMEOUT`.
    """
    link = open_link(broker, "doctor") if isinstance(broker, RedisBroker) else broker.link("doctor")
    try:
        began = time.monotonic()
        if isinstance(broker, RedisBroker) and not has_state(broker):
            send_echo(broker, "doctor")
        else:
            broker.probe("doctor")
        while time.monotonic() < began + PROBE_TIMEOUT:
            if _echoed(link):
                return time.monotonic() - began
    finally:
        link.close()
    raise BrokerUnavailable("it answers, but subscribers do not get what is published")


def _echoed(link: Link) -> bool:
    return any(isinstance(signal, Echo) for signal in link.read(0.2))


def _speed(url: str, seconds: float) -> Finding:
    text = f"a probe to {url} came back after {seconds * 1000:.1f} ms"
    if seconds < SLOW:
        return ok("broker", text)
    why = "every event takes at least half of this time to reach a worker"
    return warning("broker", text, why, "move Redis closer to the workers, and read its slow log")


# -- other processes that use the same Redis --------------------------------------------------------------


def _around(broker: Broker, settings: Settings) -> Iterator[Finding]:
    first = broker.shards[0]
    if not isinstance(first, RedisBroker):
        return
    try:
        found = surroundings(first, settings.prefix)
        policies = list(examine_policies(broker.shards, found.kept, settings))
    except (BrokerUnavailable, *UNREADABLE):
        return  # the server may forbid the commands
    yield _publishers(found, settings)
    yield from policies
    if found.ahead > AHEAD:
        yield warning(
            "clock of Redis",
            f"the newest event is {found.ahead:.0f} seconds ahead of Redis' clock: the clock was set back",
            "events keep their order, but their times are wrong until the clock has caught up; a step of "
            "more than a day makes every client lose its place (sse.reset)",
            "run a time service on the machine of Redis that slews the clock (chrony without makestep)",
        )


def _publishers(found: Surroundings, settings: Settings) -> Finding:
    elsewhere = [*(f"the prefix {name}" for name in found.prefixes)]
    elsewhere += [f"database {number}" for number in found.databases]
    if not elsewhere:
        return ok("publishers", "nobody uses this Redis with another prefix or database")
    what = ", ".join(elsewhere)
    if found.has_events:
        return ok("publishers", f"other apps use {what}; events of this app are there too")
    return warning(
        "publishers",
        f"this app (prefix {settings.prefix}) has no events here, but {what} of the same Redis has",
        "if the publishers use another prefix or database than the app, its streams get none of their events",
        "give all processes of the app the same SSE_PUSH_PREFIX and the same database at the end of "
        "SSE_PUSH_BROKER_URL",
    )
