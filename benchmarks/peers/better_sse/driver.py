"""better-sse on Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..base import PUBLISH, STORM, Peer

FOLDER = Path(__file__).parent


class BetterSSE(Peer):
    name = "better-sse"
    title = "better-sse on Node"
    cases = Peer.cases - {STORM, PUBLISH}

    def command(self) -> Sequence[str | Path]:
        return ["node", FOLDER / "server.mjs", str(self.port)]

    def versions(self) -> dict[str, str]:
        manifest = FOLDER / "node_modules" / "better-sse" / "package.json"
        return {
            "node": _node_version(),
            "better-sse": json.loads(manifest.read_text())["version"] if manifest.exists() else "",
        }

    def missing(self) -> str | None:
        if not shutil.which("node"):
            return "install Node 20 or newer, then: python -m benchmarks.setup"
        return super().missing()


def _node_version() -> str:
    if not shutil.which("node"):
        return ""
    return subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip().lstrip("v")
