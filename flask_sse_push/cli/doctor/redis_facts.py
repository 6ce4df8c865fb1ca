"""Checks what Redis reports about itself: version, memory, limits, clock. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .finding import Finding, broken, graded, ok, warning

#: How many seconds the clocks of Redis and of this machine may differ.
SKEW = 2.0
#: Two limits for the bytes of Redis' output buffer for a worker. A buffer below the first limit is an error,
#: and a buffer below the second limit is a warning.
TOO_SMALL, SMALL = 1_000_000, 8_000_000
#: The oldest version of Redis that this package is tested with: (major, minor).
OLDEST = (7, 0)
#: The oldest version with all commands that the scripts use; redis+cluster:// needs 7.0 for SPUBLISH.
OLDEST_THAT_WORKS = "Redis 5.0 (redis+cluster:// 7.0)"


def check_facts(facts: Mapping[str, Any], now: float) -> Iterator[Finding]:
    """Yields findings about the facts that Redis reported. Pure.

    Skips a check if the fact that it needs is missing.

    :param facts: the result of `Broker.inspect`.
    :param now: the Unix time of this machine, in seconds.
    """
    yield _version(facts)
    if facts.get("role") == "slave":
        yield _replica(facts)
    yield from _eviction(facts)
    yield from _buffer(facts)
    yield from _persistence(facts)
    yield from _clients(facts)
    if "time" in facts:
        yield _clock(_number(facts, "time"), now)


def _replica(facts: Mapping[str, Any]) -> Finding:
    primary = f"redis://{facts.get('master_host')}:{facts.get('master_port')}"
    return warning(
        "role",
        "this Redis is a replica that accepts writes (replica-read-only no)",
        "what is written here disappears when the replica synchronises with its primary",
        f"set SSE_PUSH_BROKER_URL to the primary ({primary}), or use redis+sentinel://, which finds it",
    )


def _number(facts: Mapping[str, Any], name: str) -> float:
    """Returns a fact that is a number; 0 if the server did not report the fact, or if it is no number."""
    try:
        return float(facts.get(name, 0))
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _version(facts: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "0")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal() and len(part) < 9)
    if parts >= OLDEST:
        return ok("version", f"{name} {version}")
    return warning(
        "version",
        f"{name} {version}",
        "flask_sse_push is not tested with this version, and nobody fixes faults of this version any more",
        f"run Redis 7 or Valkey 7.2 or newer; the scripts need at least {OLDEST_THAT_WORKS}",
    )


def _eviction(facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, policy = _number(facts, "maxmemory"), str(facts.get("maxmemory-policy", "noeviction"))
    used = _number(facts, "used_memory")
    if not most or "maxmemory-policy" not in facts:
        yield ok("eviction", "maxmemory is not set")
    elif policy != "noeviction":
        yield broken(
            "eviction",
            f"maxmemory-policy is {policy}",
            "when memory is full, Redis deletes kept events and counters: clients then get sse.reset",
            "set maxmemory-policy to noeviction, or use a Redis that is no cache",
        )
    elif used > 0.9 * most:
        yield warning(
            "eviction",
            f"{used:.0f} of {most:.0f} bytes of memory are in use, and the policy is noeviction",
            "publishing fails when memory is full",
            "raise maxmemory, or lower SSE_PUSH_HISTORY_SIZE or SSE_PUSH_HISTORY_TTL",
        )
    else:
        yield ok("eviction", "noeviction")


def _buffer(facts: Mapping[str, Any]) -> Iterator[Finding]:
    found = re.search(r"\bpubsub (\d{1,18}) (\d{1,18})\b", str(facts.get("client-output-buffer-limit", "")))
    if found is None:
        return
    hard, soft = int(found[1]), int(found[2])
    limit = min([size for size in (hard, soft) if size] or [0])
    name, what = "pub/sub buffer", f"client-output-buffer-limit pubsub is {hard} and {soft} bytes"
    why = "Redis cuts off a worker that reads slowly for a moment; it must then read all channels again"
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
        "after a restart Redis has lost the newest events or all events: clients then get sse.reset",
        "set appendonly yes",
    )


def _clients(facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, now = _number(facts, "maxclients"), _number(facts, "connected_clients")
    if most and now > 0.9 * most:
        yield broken(
            "clients",
            f"{now:.0f} of {most:.0f} connections to Redis are in use",
            "Redis refuses workers that start or reconnect",
            "raise maxclients, or find out which clients have so many connections",
        )


def _clock(theirs: float, now: float) -> Finding:
    skew = abs(theirs - now)
    if skew < SKEW:
        return ok("clock", f"Redis' clock differs by {skew:.1f} seconds")
    return warning(
        "clock",
        f"the clocks of Redis and of this machine differ by {skew:.0f} seconds",
        "tickets and tokens may count as expired, and times in logs do not match",
        "run a time service (chrony, systemd-timesyncd) on both machines",
    )
