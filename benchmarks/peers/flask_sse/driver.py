"""flask-sse on gunicorn with gevent, with one Redis connection per stream."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..base import BURST, IDLE, PUBLISH, STEADY, GunicornPeer


class FlaskSSE(GunicornPeer):
    name = "flask-sse"
    title = "flask-sse"
    app = "benchmarks.peers.flask_sse.app:app"
    # flask-sse has no history, no heartbeats and one channel per stream. A stream opens only with its first
    # event.
    cases = frozenset({STEADY, BURST, IDLE, PUBLISH})
    rate = 5
    burst = 50
    max_streams = 1000
    uses_redis = True
    publisher = "flask-sse"
    distributions = ("flask-sse", "flask", "gunicorn", "gevent", "redis")

    def env(self) -> Mapping[str, str]:
        return {"BENCH_REDIS_URL": self.redis_url}

    def path(self, channels: str) -> str:
        return f"/stream?channel={channels}"

    def nudge(self) -> None:
        assert self.redis is not None
        self.redis.command("PUBLISH", "bench", json.dumps({"data": "hello"}))
