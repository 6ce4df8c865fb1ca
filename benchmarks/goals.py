"""The goals of flask_sse_push, as ratios or as figures, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: What, case, figure, server, compared with (a server, or "" for the number itself), limit. A limit of 0 or
#: more is a maximum. A negative limit is a minimum: -8 means at least 8.
Goal = tuple[str, str, str, str, str, float]

_OURS, _GENERATOR = "push-hijack", "push-generator"
GOALS: tuple[Goal, ...] = (
    ("CPU per event and stream / C", "steady", "cpu_us", _OURS, "broadcaster", 1.3),
    ("CPU per event and stream / nchan", "steady", "cpu_us", _OURS, "nchan", 1.0),
    ("CPU per event and stream / sse-starlette", "steady", "cpu_us", _OURS, "sse-starlette", 1 / 4),
    ("CPU per event and stream / flask-sse", "steady", "cpu_us", _OURS, "flask-sse", 1 / 12),
    ("p99 latency / nchan", "steady", "p99_ms", _OURS, "nchan", 1.0),
    ("event to one user, 20/s, CPU µs", "users", "slow_cpu_us", _OURS, "", 350),
    ("event to one user, 20/s, p50 ms", "users", "slow_p50_ms", _OURS, "", 1),
    ("event to one user, 300/s, CPU µs", "users", "fast_cpu_us", _OURS, "", 110),
    ("event to one user beside 10,000 channels, 300/s, CPU µs", "users", "beside_cpu_us", _OURS, "", 110),
    ("event to one user with 50 channels a stream, 300/s, CPU µs", "users", "many_cpu_us", _OURS, "", 110),
    ("event to one user, 300/s, p50 ms", "users", "fast_p50_ms", _OURS, "", 1),
    ("burst, deliveries/s from the first delivery on", "burst", "deliveries_per_s", _OURS, "", -4e6),
    ("burst, deliveries/s / C", "burst", "deliveries_per_s", _OURS, "broadcaster", -8),
    ("idle memory per stream, kB", "idle", "kb_per_stream", _OURS, "", 1),
    ("handshake CPU / empty view", "handshake", "cpu_us", _OURS, "empty-view", 1.15),
    ("CPU for a stream that leaves, µs", "departure", "leave_us", _OURS, "", 50),
    (
        "to open and close a stream among 5,000 idle streams / among 10",
        "departure",
        "many_vs_few",
        _OURS,
        "",
        1.3,
    ),
    ("storm, seconds", "storm", "seconds", _OURS, "", 1.8),
    ("storm, seconds / nchan", "storm", "seconds", _OURS, "nchan", 1.0),
    ("storm, streams that lack events", "storm", "incomplete", _OURS, "", 0),
    ("idle streams with heartbeats, CPU / nchan", "heartbeat", "cpu_percent", _OURS, "nchan", 1.0),
    ("common event beside own channels / one channel", "groups", "common_vs_crowd", _OURS, "", 1.15),
    ("publish one by one / bare EVALSHA", "publish", "single_vs_evalsha", _OURS, "", -0.8),
    ("100 greenlets that publish / one by one", "publish", "crowd_vs_single", _OURS, "", -5),
    ("publish 100 at a time, events/s", "publish", "many_per_s", _OURS, "", -70_000),
    ("Redis, CPU µs per event, 100 at a time", "publish", "redis_cpu_us", _OURS, "", 8),
    ("generator, CPU / bare generator", "steady", "cpu_us", _GENERATOR, "gevent-queue", 1.2),
    ("generator, burst / bare generator", "burst", "deliveries_per_s", _GENERATOR, "gevent-queue", -1 / 1.2),
    ("crowd, memory of all workers above idle, MB", "crowd", "memory_mb", _OURS, "", 150),
    ("crowd, seconds until all streams have an event", "crowd", "event_s", _OURS, "", 0.6),
    ("crowd, events lost after the kill", "crowd", "lost", _OURS, "", 0),
    ("crowd, events doubled after the kill", "crowd", "doubled", _OURS, "", 0),
    ("crowd, sse.reset after the kill", "crowd", "resets", _OURS, "", 0),
    ("crowd, seconds until all streams are back", "crowd", "back_s", _OURS, "", 10),
)


def measured(results: Mapping[str, Any], case: str, figure: str, server: str, other: str) -> float | None:
    """Returns the figure or ratio, or None if a part of it was not measured.

    A ratio is the median of the rounds' ratios if the tables show it, and otherwise the ratio of the medians.
    """
    peers = results.get(case, {})
    value = peers.get(server, {}).get(figure)
    if value is None or not other:
        return value if value is None else float(value)
    ratio = peers[server].get(f"{figure}_vs_{other}")
    base = peers.get(other, {}).get(figure)
    return ratio or (float(value) / base if base else None)


def judged(results: Mapping[str, Any]) -> Iterator[tuple[Goal, float, bool]]:
    """Yields each goal that was measured, with the measured value and whether the goal is reached."""
    for goal in GOALS:
        value = measured(results, *goal[1:5])
        if value is not None:
            limit = goal[5]
            yield goal, value, value >= -limit if limit < 0 else value <= limit


def table(results: Mapping[str, Any]) -> list[str]:
    """Returns the table of goals as Markdown lines; empty if flask_sse_push was not measured."""
    lines: list[str] = []
    for (what, *_, limit), value, reached in judged(results):
        wanted = f"at least {-limit:,.3g}" if limit < 0 else f"at most {limit:,.3g}"
        lines.append(f"| {what} | {wanted} | {value:,.2f} | {'yes' if reached else 'no'} |")
    return ["| goal | wanted | measured | reached |", "|---|---|---|---|", *lines] if lines else []
