"""The goals of flask_sse_push as ratios within one run, and whether the run reached them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What, case, figure, server, compared with (a server, or "" for the number itself), limit. A positive limit
#: is a maximum. A negative limit is a minimum: -8 means at least 8.
GOALS: tuple[tuple[str, str, str, str, str, float], ...] = (
    ("CPU per event and stream / C", "steady", "cpu_us", "push-hijack", "broadcaster", 1.3),
    ("CPU per event and stream / nchan", "steady", "cpu_us", "push-hijack", "nchan", 1.0),
    ("CPU per event and stream / sse-starlette", "steady", "cpu_us", "push-hijack", "sse-starlette", 1 / 4),
    ("CPU per event and stream / flask-sse", "steady", "cpu_us", "push-hijack", "flask-sse", 1 / 12),
    ("p99 latency / nchan", "steady", "p99_ms", "push-hijack", "nchan", 1.0),
    ("burst, deliveries/s from the first delivery on", "burst", "deliveries_per_s", "push-hijack", "", -4e6),
    ("burst, deliveries/s / C", "burst", "deliveries_per_s", "push-hijack", "broadcaster", -8),
    ("idle memory per stream, kB", "idle", "kb_per_stream", "push-hijack", "", 1),
    ("handshake CPU / empty view", "handshake", "cpu_us", "push-hijack", "empty-view", 1.25),
    ("CPU for a stream that leaves, µs", "departure", "leave_us", "push-hijack", "", 50),
    ("opening and closing, among many / among few", "departure", "many_vs_few", "push-hijack", "", 1.3),
    ("storm, seconds", "storm", "seconds", "push-hijack", "", 3),
    ("storm, streams that lack events", "storm", "incomplete", "push-hijack", "", 0),
    ("idle streams with heartbeats, CPU / nchan", "heartbeat", "cpu_percent", "push-hijack", "nchan", 1.0),
    ("common event beside own channels / one channel", "groups", "common_vs_crowd", "push-hijack", "", 1.15),
    ("generator, CPU / bare generator", "steady", "cpu_us", "push-generator", "gevent-queue", 1.2),
    (
        "generator, burst / bare generator",
        "burst",
        "deliveries_per_s",
        "push-generator",
        "gevent-queue",
        -1 / 1.2,
    ),
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


def table(results: Mapping[str, Any]) -> list[str]:
    """Returns the table of goals as Markdown lines; empty if flask_sse_push was not measured."""
    lines: list[str] = []
    for what, case, figure, server, other, limit in GOALS:
        value = measured(results, case, figure, server, other)
        if value is not None:
            reached = value >= -limit if limit < 0 else value <= limit
            goal = f"at least {-limit:,.3g}" if limit < 0 else f"at most {limit:,.3g}"
            lines.append(f"| {what} | {goal} | {value:,.2f} | {'yes' if reached else 'no'} |")
    return ["| goal | wanted | measured | reached |", "|---|---|---|---|", *lines] if lines else []
