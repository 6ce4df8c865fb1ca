"""flask_sse_push from this checkout, with each of its two transports."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from ...process import ROOT
from ..base import HEARTBEAT_INTERVAL, GunicornPeer

READY = """
from flask_sse_push import MessageAnnouncer, sse
from flask_sse_push import __version__
print(__version__)
"""


class Push(GunicornPeer):
    app = "benchmarks.peers.push.app:app"
    transport: str
    uses_redis = True
    publisher = "announcer"
    distributions = ("flask", "gunicorn", "gevent", "redis")

    def env(self) -> Mapping[str, str]:
        return {
            "SSE_PUSH_BROKER_URL": self.redis_url,
            "SSE_PUSH_PUBLIC_CHANNELS": "*",
            "SSE_PUSH_TRANSPORT": self.transport,
            # The default limit keeps room for other requests. The benchmark opens more streams.
            "SSE_PUSH_MAX_STREAMS": "100000",
            "SSE_PUSH_HEARTBEAT": str(HEARTBEAT_INTERVAL),
        }

    def versions(self) -> dict[str, str]:
        return {"flask_sse_push": self._probe()[0], **super().versions()}

    def missing(self) -> str | None:
        version, problem = self._probe()
        return super().missing() if version else f"flask_sse_push cannot be imported yet: {problem}"

    def miss(self, count: int, size: int) -> tuple[str, tuple[str, ...]]:
        cursor = self.publish(1, 0, size)["cursor"]
        self.publish(count, 0, size, batch=count)
        return self.path("bench"), (f"Last-Event-ID: {cursor}",)

    def _probe(self) -> tuple[str, str]:
        command = [str(self.settings.python), "-c", READY]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        problem = (found.stderr.strip().splitlines() or [""])[-1]
        return found.stdout.strip() if not found.returncode else "", problem


class PushHijack(Push):
    name = "push-hijack"
    title = "flask_sse_push, hijack"
    transport = "hijack"


class PushGenerator(Push):
    name = "push-generator"
    title = "flask_sse_push, generator"
    transport = "generator"
