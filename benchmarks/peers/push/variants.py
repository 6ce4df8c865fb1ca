"""flask_sse_push with something switched on, and the same without: for `benchmarks.pairs`."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .driver import PushHijack

#: Turns of a quarter of a second between two scrapes: Prometheus comes every 15 seconds.
SCRAPE_EVERY = 60


class Variant(PushHijack):
    """One of a pair. Both listen to `bench`."""

    def stream_path(self) -> str:
        return self.path("bench")

    def before_turn(self, number: int) -> None:
        """What belongs to the load of this server besides events."""


class WatchedOff(Variant):
    name = "unwatched"

    def env(self) -> Mapping[str, str]:
        return {**super().env(), "SSE_PUSH_LOG_TOTALS": "0"}


class Watched(Variant):
    """Prometheus metrics in multiprocess mode, scraped, and the log at INFO as JSON, totals each second."""

    name = "watched"
    app = "benchmarks.peers.push.watched:app"

    def env(self) -> Mapping[str, str]:
        shared = Path(self.folder) / "metrics"
        shared.mkdir(exist_ok=True)
        more = {"PROMETHEUS_MULTIPROC_DIR": str(shared), "SSE_PUSH_LOG_JSON": "1", "SSE_PUSH_LOG_TOTALS": "1"}
        return {**super().env(), **more}

    def before_turn(self, number: int) -> None:
        if number % SCRAPE_EVERY == 0:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stream/metrics", timeout=30) as answer:
                if b"sse_push_events_delivered_total" not in answer.read():
                    raise RuntimeError("the metrics lack the events")


class GuardedOff(Variant):
    name = "unguarded"


class Guarded(Variant):
    """Each stream has a user of its own, counted, authorised, and asked about again every 60 seconds."""

    name = "guarded"
    app = "benchmarks.peers.push.guarded:app"

    def env(self) -> Mapping[str, str]:
        limits = {"SSE_PUSH_MAX_STREAMS_PER_USER": "5", "SSE_PUSH_MAX_STREAMS_PER_ADDRESS": "100000"}
        return {**super().env(), **limits, "SSE_PUSH_PUBLIC_CHANNELS": "nothing"}

    def stream_path(self) -> str:
        return self.path("bench") + "&user=%d"
