"""The reference for the generator transport: a bare gevent queue per client."""

from __future__ import annotations

from collections.abc import Mapping

from ..base import HEARTBEAT, PUBLISH, STORM, GunicornPeer


class GeventQueue(GunicornPeer):
    name = "gevent-queue"
    title = "bare gevent generator, one queue a client"
    app = "benchmarks.peers.gevent_queue.app:app"
    cases = GunicornPeer.cases - {STORM, HEARTBEAT, PUBLISH}
    uses_redis = True
    publisher = "redis"
    distributions = ("flask", "gunicorn", "gevent", "redis")

    def env(self) -> Mapping[str, str]:
        return {"BENCH_REDIS_URL": self.redis_url}
