"""Redis as it is set up: asked by the broker's own connection."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...brokers.base import Broker, Echo, Link
from ...config import Settings, without_secret
from ...errors import BrokerUnavailable
from .finding import Finding, broken, graded, ok, warning

#: Seconds that an answer may take, and that clocks may differ.
SLOW, SKEW = 0.05, 2.0
#: Bytes that a worker which is late may have waiting in Redis before it is cut off.
TOO_SMALL, SMALL = 1_000_000, 8_000_000
#: The oldest version that all is tested with.
OLDEST = (7, 0)
#: Seconds until a probe must have come back.
PATIENCE = 3.0


def examine_broker(broker: Broker, settings: Settings) -> Iterator[Finding]:
    """Findings on the broker. Blocks for some round trips."""
    url = without_secret(settings.broker_url)
    if settings.broker_url.startswith("memory:"):
        yield ok("broker", "memory:// keeps events in one process")
        return
    try:
        seconds = max([_heard(shard) for shard in broker.shards])
    except BrokerUnavailable as error:
        yield broken(
            "broker",
            f"{url} does not answer as it should: {error}",
            "nothing can be published and no stream begins",
            "look at the URL, the password, the rights (EVALSHA, PUBLISH, SUBSCRIBE), and the network",
        )
        return
    yield _speed(url, seconds)
    try:
        facts = broker.inspect()
    except BrokerUnavailable as error:
        yield warning(
            "broker", f"it does not tell of itself: {error}", "its set-up stays unknown", "ask INFO"
        )
        return
    yield from judge(facts, time.time())


def _heard(broker: Broker) -> float:
    """Seconds until a probe came back over a link of our own: commands, scripts and pub/sub work."""
    link = broker.link("doctor")
    try:
        began = time.monotonic()
        broker.probe("doctor")
        while time.monotonic() < began + PATIENCE:
            if _echoed(link):
                return time.monotonic() - began
    finally:
        link.close()
    raise BrokerUnavailable("it answers, but what is published does not arrive at who subscribed")


def _echoed(link: Link) -> bool:
    return any(isinstance(signal, Echo) for signal in link.read(0.2))


def _speed(url: str, seconds: float) -> Finding:
    text = f"a probe to {url} came back after {seconds * 1000:.1f} ms"
    if seconds < SLOW:
        return ok("broker", text)
    why = "every event is late by as much"
    return warning("broker", text, why, "put Redis nearer to the workers, and look at its slow log")


def judge(facts: Mapping[str, Any], now: float) -> Iterator[Finding]:
    """Findings on what Redis told of itself; what it did not tell is passed over. Pure.

    :param facts: see `Broker.inspect`.
    :param now: this machine's clock, in seconds since the epoch.
    """
    yield _version(facts)
    if facts.get("role") == "slave":
        yield broken(
            "role",
            "this Redis is a replica",
            "it takes no writes: every publish fails",
            "give the URL of the primary, or redis+sentinel://, which follows it",
        )
    yield from _eviction(facts)
    yield from _buffer(facts)
    yield from _persistence(facts)
    yield from _clients(facts)
    if "time" in facts:
        yield _clock(float(facts["time"]), now)


def _version(facts: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "0")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if parts >= OLDEST:
        return ok("version", f"{name} {version}")
    why = "it is older than what is tested, and no more mended by its makers"
    return warning("version", f"{name} {version}", why, "run Redis 7 or Valkey 7.2 or newer")


def _eviction(facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, policy = int(facts.get("maxmemory", 0)), str(facts.get("maxmemory-policy", "noeviction"))
    used = int(facts.get("used_memory", 0))
    if not most or "maxmemory-policy" not in facts:
        yield ok("eviction", "no limit of memory is set")
    elif policy != "noeviction":
        yield broken(
            "eviction",
            f"maxmemory-policy is {policy}",
            "under pressure Redis throws kept events and counters away: streams are told so (sse.reset)",
            "set maxmemory-policy to noeviction, or give the app a Redis that is no cache",
        )
    elif used > 0.9 * most:
        yield warning(
            "eviction",
            f"{used} of {most} bytes are in use, and nothing may be evicted",
            "publishing fails once memory is full",
            "raise maxmemory, or lower SSE_PUSH_HISTORY_SIZE or SSE_PUSH_HISTORY_TTL",
        )
    else:
        yield ok("eviction", "noeviction")


def _buffer(facts: Mapping[str, Any]) -> Iterator[Finding]:
    limits = str(facts.get("client-output-buffer-limit", "")).split()
    if "pubsub" not in limits:
        return
    at = limits.index("pubsub")
    hard, soft = int(limits[at + 1]), int(limits[at + 2])
    limit = min([each for each in (hard, soft) if each] or [0])
    name, what = "pub/sub buffer", f"client-output-buffer-limit pubsub is {hard} and {soft} bytes"
    why = "a worker that is late for a moment is cut off, and must read all its channels again"
    advice = "set client-output-buffer-limit 'pubsub 32mb 8mb 60' (Redis' default) or more"
    too_small, small = 0 < limit < TOO_SMALL, 0 < limit < SMALL
    yield graded(name, what, why, advice, is_broken=too_small, is_poor=small)


def _persistence(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if "appendonly" not in facts:
        return
    if facts["appendonly"] == "yes":
        yield ok("persistence", "appendonly yes")
        return
    what = "appendonly is no" + ("" if facts.get("save") else ", and no snapshots are saved")
    yield warning(
        "persistence",
        what,
        "a Redis that restarts has lost the newest events or all of them: streams are told so (sse.reset)",
        "set appendonly yes",
    )


def _clients(facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, now = int(facts.get("maxclients", 0)), int(facts.get("connected_clients", 0))
    if most and now > 0.9 * most:
        yield broken(
            "clients",
            f"{now} of {most} connections to Redis are taken",
            "workers that start or reconnect are turned away",
            "raise maxclients, or find out who holds so many",
        )


def _clock(theirs: float, now: float) -> Finding:
    skew = abs(theirs - now)
    if skew < SKEW:
        return ok("clock", f"Redis' clock differs by {skew:.1f} seconds")
    return warning(
        "clock",
        f"the clocks of Redis and of this machine differ by {skew:.0f} seconds",
        "times in tickets, tokens and logs do not fit together",
        "let a time service (chrony, systemd-timesyncd) run on both",
    )
