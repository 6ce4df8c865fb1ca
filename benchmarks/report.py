"""Writes the figures of a run as JSON and as Markdown, with the ratios to the C broadcaster and nchan."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from .goals import table

REFERENCES = {"broadcaster": "vs C", "nchan": "vs nchan"}
BOTH = tuple(REFERENCES)


@dataclass(frozen=True)
class Column:
    key: str
    heading: str
    digits: int = 1
    ratios: tuple[str, ...] = ()


#: Title and columns of each case; `ratios` adds a column for the ratio to each of these servers.
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "steady": (
        "Steady fan-out: {steady_streams} streams, 20 events/s of {event} bytes for {steady_seconds:g} s",
        (
            Column("cpu_us", "CPU µs per event and stream", 2, ratios=BOTH),
            Column("p50_ms", "p50 ms"),
            Column("p99_ms", "p99 ms", ratios=BOTH),
            Column("rate", "events/s", 0),
        ),
    ),
    "one-stream": (
        "One stream, 20 events/s of {event} bytes for {steady_seconds:g} s",
        (
            Column("cpu_us", "CPU µs per event", 0, ratios=BOTH),
            Column("p50_ms", "p50 ms"),
            Column("p99_ms", "p99 ms"),
            Column("rate", "events/s", 0),
        ),
    ),
    "burst": (
        "Burst: {steady_streams} streams, 500 events of {event} bytes at once",
        (
            Column("deliveries_per_s", "deliveries/s from the first delivery on", 0, ratios=BOTH),
            Column("deliveries_per_s_from_publish", "from the first publish on", 0, ratios=BOTH),
            Column("cpu_us", "CPU µs per delivery", 2),
            Column("p99_ms", "p99 ms", 0),
            Column("events", "events", 0),
            Column("client_busy", "client busy", 2),
        ),
    ),
    "idle": (
        "Idle memory: {idle_streams} open streams",
        (
            Column("kb_per_stream", "kB resident per stream", 2, ratios=("nchan",)),
            Column("kernel_kb_per_stream", "kB in the kernel", 1),
            Column("empty_kb", "kB resident without streams", 0),
            Column("streams", "streams", 0),
        ),
    ),
    "handshake": (
        "Handshakes: {idle_streams} streams opened, 200 at a time",
        (
            Column("cpu_us", "CPU µs per handshake", 0, ratios=BOTH),
            Column("vs_empty_view", "vs empty view", 2),
            Column("seconds", "seconds for all", 2),
        ),
    ),
    "storm": (
        "Reconnect storm: {storm_streams} streams with {storm_missed} missed events each, to a new worker",
        (
            Column("seconds", "seconds until all streams have all events", 2, ratios=BOTH),
            Column("cpu_us_per_stream", "CPU µs per stream", 0),
            Column("incomplete", "streams that lack events", 0),
            Column("redis_commands", "Redis commands, including those in scripts"),
        ),
    ),
    "heartbeat": (
        "Heartbeats: {heartbeat_streams} idle streams, each with one heartbeat in 15 s",
        (
            Column("cpu_percent", "CPU % of one core", 2, ratios=BOTH),
            Column("lost", "streams lost", 0),
            Column("bytes_per_stream", "bytes received per stream", 0),
        ),
    ),
    "groups": (
        "Many groups: {groups} users, each with a channel of their own and one common channel",
        (
            Column("crowd_cpu_us", "all on one channel: CPU µs per event and stream", 2),
            Column("common_cpu_us", "common event: CPU µs per event and stream", 2, ratios=BOTH),
            Column("common_vs_crowd", "common / one channel", 2),
            Column("own_cpu_us", "event to one user: CPU µs", 1, ratios=BOTH),
            Column("incomplete", "streams that lack events", 0),
        ),
    ),
    "users": (
        "One event for one user of {users}, and of {wide_streams} with 50 channels each",
        (
            Column("slow_cpu_us", "20 events/s: CPU µs per event", 0, ratios=("nchan",)),
            Column("slow_p50_ms", "p50 ms", 2),
            Column("fast_cpu_us", "300 events/s: CPU µs", 0, ratios=("nchan",)),
            Column("fast_p50_ms", "p50 ms", 2),
            Column("beside_cpu_us", "beside 10,000 idle channels", 0, ratios=("nchan",)),
            Column("many_cpu_us", "with 50 channels a stream", 0, ratios=("nchan",)),
            Column("incomplete", "events lost", 0),
        ),
    ),
    "publish": (
        "Publishing: one process publishes, no stream is open",
        (
            Column("single_per_s", "one by one, events/s", 0, ratios=BOTH),
            Column("many_per_s", "100 at a time, events/s", 0, ratios=BOTH),
            Column("single_vs_evalsha", "one by one vs a bare EVALSHA", 2),
            Column("crowd_per_s", "100 greenlets, events/s", 0),
            Column("crowd_vs_single", "vs one by one", 1),
            Column("redis_cpu_us", "CPU µs of Redis per event, 100 at a time", 1),
            Column("redis_cpu_us_per_worker", "added for each worker that listens", 1),
        ),
    ),
    "crowd": (
        "A crowd: {crowd_streams:,} streams on one machine, and one of the workers is killed",
        (
            Column("workers", "workers", 0),
            Column("open_s", "seconds until all are open", 1),
            Column("memory_mb", "MB of all workers above idle", 0),
            Column("event_s", "seconds until all have an event", 2),
            Column("killed_streams", "streams of the killed worker", 0),
            Column("back_s", "seconds until all are back", 1),
            Column("lost", "events lost", 0),
            Column("doubled", "events doubled", 0),
        ),
    ),
    "departure": (
        "Open and close {churned} streams among 10 and among {churn_idle} idle ones; then nearly all leave",
        (
            Column("few_us", "CPU µs to open and close a stream, among few", 0),
            Column("many_us", "among many", 0),
            Column("many_vs_few", "many / few", 2),
            Column("batch_few_us", "50 at a time, among few", 0),
            Column("batch_many_us", "50 at a time, among many", 0),
            Column("leave_us", "CPU µs per leaving stream", 1, ratios=BOTH),
            Column("left_open", "sockets left behind", 0),
        ),
    ),
}

Results = dict[str, dict[str, dict[str, Any]]]  # case, peer, figure


def medians(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Returns the figures of each server over all rounds in which it ran; see `median`."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: median([one[name] for one in rounds if name in one]) for name in names}


def median(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one set of figures for several rounds: the median of each number, the last value of others."""
    found = {}
    for key in dict.fromkeys(key for one in rounds for key in one):
        values = [one[key] for one in rounds if key in one]
        found[key] = statistics.median(values) if isinstance(values[-1], (int, float)) else values[-1]
    return found


def add_ratios(case: str, peers: Mapping[str, dict[str, Any]]) -> None:
    """Adds `<figure>_vs_<reference>` to the figures of one round in which the reference server ran."""
    for column in TABLES[case][1]:
        for reference in column.ratios:
            _add_ratio(peers, column.key, reference, f"{column.key}_vs_{reference}")
    if case == "handshake":
        _add_ratio(peers, "cpu_us", "empty-view", "vs_empty_view")


def _add_ratio(peers: Mapping[str, dict[str, Any]], key: str, reference: str, name: str) -> None:
    base = peers.get(reference, {}).get(key)
    for figures in peers.values():
        if base and key in figures:
            figures[name] = figures[key] / base


def machine() -> dict[str, Any]:
    """Returns processor, cores and kernel; nothing that identifies the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(models) or None,
        "kernel": f"{platform.system()} {platform.release()}",
    }


def document(
    results: Results,
    *,
    titles: Mapping[str, str],
    versions: Mapping[str, Mapping[str, str]],
    skipped: Mapping[str, str],
    errors: Mapping[str, str],
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "sizes": dict(sizes),
        "titles": dict(titles),
        "versions": {name: dict(parts) for name, parts in versions.items()},
        "skipped": dict(skipped),
        "errors": dict(errors),
        "results": results,
    }


def updated(older: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the older run with the cases of the newer run replaced; each case is independent.

    :raises ValueError: when the two runs differ in machine, servers or sizes.
    """
    if any(older[part] != newer[part] for part in ("machine", "titles")):
        raise ValueError("the run to be updated comes from another machine or other servers")
    sizes = {**older["sizes"], "rounds": {**older["sizes"]["rounds"], **newer["sizes"]["rounds"]}}
    if {**sizes, "rounds": 0} != {**newer["sizes"], "rounds": 0}:
        raise ValueError("the run to be updated has other sizes")
    return {
        **newer,
        "sizes": sizes,
        "versions": {**older["versions"], **newer["versions"]},
        "errors": {**older["errors"], **newer["errors"]},
        "results": {**older["results"], **newer["results"]},
    }


def markdown(run: Mapping[str, Any], *, chart: bool = False) -> str:
    """Returns the run as a Markdown page.

    :param chart: whether the page shows benchmarks.svg.
    """
    lines = [
        "# Benchmarks",
        "",
        "How do the servers compare when they do the same work? This page is generated from a run of "
        f"`python -m benchmarks.run` on {run['date']}. One server after another ran on one machine. The "
        "server had one core; the publisher, Redis and the clients shared another. Two cases differ: in the "
        "case of publishing, Redis used the server's core, and the crowd shared all cores. "
        "`benchmarks/README.md` explains what each case does.",
        "",
        "Absolute figures depend on the machine, so compare the ratios: `vs C` is the ratio to a C program "
        "that does nothing but `send()`, `vs nchan` the ratio to nginx with nchan. flask_sse_push runs with "
        "each of its two transports, `hijack` and `generator`.",
        "",
    ]
    lines += ["![Bars of the main figures, flask_sse_push in blue](benchmarks.svg)", ""] if chart else []
    for case, peers in run["results"].items():
        title, columns = TABLES[case]
        lines += [f"## {title.format(**run['sizes'])}", "", *_table(columns, peers, run["titles"]), ""]
        rounds = run["sizes"]["rounds"][case]
        lines += [f"Medians of {rounds} rounds.", ""] if rounds > 1 else []
    goals = table(run["results"])
    lines += ["## Goals", "", *goals, ""] if goals else []
    lines += ["## Versions", "", "| what | version |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in run["machine"].items()]
    for name, parts in run["versions"].items():
        lines.append(f"| {run['titles'].get(name, name)} | {', '.join(' '.join(p) for p in parts.items())} |")
    for heading, notes in (("Not run", run["skipped"]), ("Failed", run["errors"])):
        if notes:
            lines += ["", f"## {heading}", "", *(f"- {name}: {why}" for name, why in notes.items())]
    return "\n".join(lines) + "\n"


def _table(
    columns: Sequence[Column], peers: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]
) -> list[str]:
    shown: list[tuple[str, str, int]] = []
    for column in columns:
        wanted = [(column.key, column.heading, column.digits)]
        wanted += [(f"{column.key}_vs_{name}", REFERENCES[name], 2) for name in column.ratios]
        shown += [one for one in wanted if any(one[0] in figures for figures in peers.values())]
    headings = " | ".join(heading for _, heading, _ in shown)
    lines = [f"| server | {headings} |", "|---|" + "---|" * len(shown)]
    for name, figures in peers.items():
        cells = [_cell(figures.get(key), digits) for key, _, digits in shown]
        lines.append(f"| {titles[name]} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return f"{value:,.{digits}f}"


def write(run: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(out: Path) -> dict[str, Any]:
    """Reads the run from benchmarks.json in a folder."""
    run: dict[str, Any] = json.loads((out / "benchmarks.json").read_text("utf-8"))
    return run


def given_less(figures: Mapping[str, Any]) -> str:
    """Returns `, at N events/s` for a server that got fewer events than the others; else nothing."""
    return f", at {figures['rate']:g} events/s" if figures.get("rate", 20) != 20 else ""
