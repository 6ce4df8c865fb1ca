"""Draws a live table of a stream in the terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..common import local_time, one_line
from .summary import Summary

#: How many lines of the screen are not events, but figures, headings, remarks or borders.
OTHER_LINES = 14
#: The color of each state of a stream; other states are yellow.
COLORS = {"open": "green", "ended": "red"}


class Screen:
    """A context manager that draws the summary four times per second.

    :param title: the URL or the channels that the command follows.
    """

    def __init__(self, title: str, summary: Summary, console: Console | None = None) -> None:
        self._title = title
        self._summary = summary
        self._console = console or Console()
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._draw)

    def _draw(self) -> RenderableType:
        return drawn(self._title, self._summary, time.monotonic(), max(3, self._console.height - OTHER_LINES))

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def drawn(title: str, summary: Summary, now: float, lines: int) -> RenderableType:
    """Returns the table, with at most `lines` events. Pure. The text of events is never read as markup.

    :param now: monotonic seconds.
    """
    age = summary.beat_age(now)
    facts = Table.grid(padding=(0, 2))
    for name, value, color in (
        ("stream", one_line(title), ""),
        ("state", summary.state, COLORS.get(summary.state, "yellow")),
        ("channels", one_line(", ".join(summary.channels)) or "-", ""),
        ("events", f"{summary.events}, {summary.rate(now):.1f}/s", ""),
        ("reconnects", f"{summary.reconnects}, resets {summary.resets}", "yellow" if summary.resets else ""),
        ("heartbeat", "-" if age is None else f"{age:.0f} s ago", ""),
    ):
        facts.add_row(Text(name, style="bold"), Text(value, style=color))
    remarks = Text("\n".join(one_line(remark) for remark in summary.remarks), style="dim")
    return Group(facts, _events(summary, lines), remarks)


def _events(summary: Summary, lines: int) -> Table:
    newest = list(summary.recent)[-lines:]
    named = any(seen.event.channel for seen in newest)
    table = Table(expand=True, box=None, header_style="bold", pad_edge=False)
    for heading in ("at", "channel", "type") if named else ("at", "type"):
        table.add_column(heading, no_wrap=True)
    table.add_column("data", no_wrap=True, overflow="ellipsis", ratio=1)
    for event, at in newest:
        channel = [event.channel] if named else []
        cells = [local_time(at), *channel, event.type, event.data]
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table
