"""The servers of `benchmarks.pairs`: flask_sse_push with and without a feature."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .driver import PushHijack

#: Turns between two scrapes. A turn takes a quarter of a second; Prometheus scrapes every 15 seconds.
SCRAPE_EVERY = 60


class Variant(PushHijack):
    """One server of a pair. Its streams listen to the channel `bench`."""

    def stream_path(self) -> str:
        return self.path("bench")

    def before_turn(self, number: int) -> None:
        """Called before each turn. Puts load on the server besides the events; here none."""


class Unmonitored(Variant):
    name = "unmonitored"

    def env(self) -> Mapping[str, str]:
        return {**super().env(), "SSE_PUSH_LOG_TOTALS": "0"}


class Monitored(Variant):
    """Has Prometheus metrics in multiprocess mode, which are scraped, and a JSON log with totals each
    second."""

    name = "monitored"
    app = "benchmarks.peers.push.monitored:app"

    def env(self) -> Mapping[str, str]:
        shared = Path(self.folder) / "metrics"
        shared.mkdir(exist_ok=True)
        more = {"PROMETHEUS_MULTIPROC_DIR": str(shared), "SSE_PUSH_LOG_JSON": "1", "SSE_PUSH_LOG_TOTALS": "1"}
        return {**super().env(), **more}

    def before_turn(self, number: int) -> None:
        if number % SCRAPE_EVERY == 0:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stream/metrics", timeout=30) as answer:
                if b"sse_push_events_delivered_total" not in answer.read():
                    raise RuntimeError("the metrics do not contain the number of events")


class Public(Variant):
    name = "public"


class Authorized(Variant):
    """Each stream has a different user. The server counts and authorizes users, and rechecks them every 60
    s."""

    name = "authorized"
    app = "benchmarks.peers.push.authorized:app"

    def env(self) -> Mapping[str, str]:
        limits = {"SSE_PUSH_MAX_STREAMS_PER_USER": "5", "SSE_PUSH_MAX_STREAMS_PER_ADDRESS": "100000"}
        return {**super().env(), **limits, "SSE_PUSH_PUBLIC_CHANNELS": "nothing"}

    def stream_path(self) -> str:
        return self.path("bench") + "&user=%d"
