"""sse-starlette on uvicorn with uvloop and httptools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base import PUBLISH, STORM, Peer


class SSEStarlette(Peer):
    name = "sse-starlette"
    title = "sse-starlette on uvicorn (uvloop)"
    cases = Peer.cases - {STORM, PUBLISH}
    distributions = ("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools")

    def command(self) -> Sequence[str | Path]:
        return [
            self.settings.python, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools",
            "--no-access-log", "--log-level", "warning", "--port", str(self.port),
            "benchmarks.peers.sse_starlette.app:app",
        ]  # fmt: skip
