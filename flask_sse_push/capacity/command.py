"""`flask sse capacity`: options in, sentences out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .estimate import TARGET, Estimate, Load, assumptions, estimate
from .measured import load as measured_figures

if TYPE_CHECKING:
    from ..blueprint import SSEBlueprint

_MOST = 10**9


def add_command(blueprint: SSEBlueprint) -> None:
    """Gives the blueprint's command group `capacity`."""

    @blueprint.cli.command("capacity")
    @click.option("--streams", type=click.IntRange(1, _MOST), required=True, help="Streams open at once.")
    @click.option(
        "--rate",
        type=click.FloatRange(0, 10**6),
        required=True,
        help="Events a second that each stream gets.",
    )
    @click.option(
        "--size", type=click.IntRange(1, _MOST), default=200, show_default=True, help="Bytes of data."
    )
    @click.option(
        "--groups",
        type=click.IntRange(1, _MOST),
        default=1,
        show_default=True,
        help="Sets of channels with streams of their own: 1 is one channel for all, as many as streams a "
        "channel for each user.",
    )
    @click.option("--cores", type=click.IntRange(1, 10_000), help="Cores that there are for workers.")
    @click.option(
        "--session",
        type=click.FloatRange(1),
        default=600.0,
        show_default=True,
        help="Seconds a stream lasts.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    def capacity(
        streams: int, rate: float, size: int, groups: int, cores: int | None, session: float, as_json: bool
    ) -> None:
        """Estimate what a load takes: cores, memory, files, Redis, network; and which of them bounds first.

        It reckons with your settings and with what the benchmarks measured. Exits with 1 when it is too much.
        """
        if groups > streams:
            raise click.BadParameter(f"is more than the {streams} streams", param_hint="--groups")
        settings = blueprint.runtime.settings
        transport = "generator" if settings.transport == "generator" else "hijack"
        load = Load(streams, rate, size, groups, session, transport)
        measured = measured_figures()
        found = estimate(load, measured, settings, cores)
        taken = assumptions(load, measured, settings)
        if as_json:
            bounds = [bound._asdict() for bound in found.bounds]
            click.echo(json.dumps({**found._asdict(), "bounds": bounds, "assumptions": taken}))
        else:
            click.echo(shown(found, taken))
        if not found.enough:
            raise click.exceptions.Exit(1)


def shown(found: Estimate, taken: list[str]) -> str:
    """The estimate for a reader."""
    first, second = found.bounds[:2]
    rows = (
        ("workers", f"{found.workers}, one a core, each {_percent(found.worker_share)} busy"),
        ("memory", f"{_size(found.worker_bytes)} a worker, {_size(found.kernel_bytes)} of the kernel's"),
        ("open files", f"{found.files:,} a worker (ulimit -n)"),
        ("to clients", _traffic(found.network)),
        ("Redis", f"{found.redis_events:,.1f} events/s, {_percent(found.redis_share)} of its core"),
        ("", f"{_size(found.redis_bytes)} of history, {_traffic(found.redis_in)} in, "
             f"{_traffic(found.redis_out)} out"),
        ("a restart", f"all streams are back after {found.return_seconds:.1f} s of all cores"),
    )  # fmt: skip
    lines = [f"{name:12}{text}" for name, text in rows]
    verdict = "" if found.enough else f": too much, more than {TARGET:.0%} should not be taken"
    lines += [
        "",
        f"Bounds first: {first.name}, {_percent(first.share)} taken{verdict}.",
        f"              What helps: {first.advice}.",
        f"Then:         {second.name}, {_percent(second.share)} taken.",
        "",
        "Assumed:",
        *(f"- {each}" for each in taken),
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _size(size: float) -> str:
    if size < 1e6:
        return f"{size / 1e3:,.1f} kB"
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _traffic(bits: float) -> str:
    return f"{bits / 1e6:,.1f} Mbit/s" if bits < 1e9 else f"{bits / 1e9:,.1f} Gbit/s"
