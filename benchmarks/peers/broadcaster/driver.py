"""The limit: `broadcaster.c`, which does nothing but `send()` and makes its own events."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...process import spawn
from ..base import GROUPS, PUBLISH, USERS, Peer


class Broadcaster(Peer):
    name = "broadcaster"
    title = "C, nothing but send() (the limit)"
    cases = Peer.cases - {PUBLISH, GROUPS, USERS}  # it has no channels

    def command(self) -> Sequence[str | Path]:
        return [self.settings.build / "broadcaster", "--port", str(self.port)]

    def versions(self) -> dict[str, str]:
        first, *_ = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout.splitlines()
        return {"C compiler": first.split()[-1]}

    def missing(self) -> str | None:
        built = (self.settings.build / "broadcaster").exists()
        return None if built else "make -C benchmarks (needs a C compiler)"

    def launch(self, cpu: int | None) -> subprocess.Popen[str]:
        process = spawn(self.command(), cpu, log=self.settings.logs / f"{self.name}.log", pipes=True)
        assert process.stdout is not None
        process.stdout.readline()  # LISTENING
        return process

    def publish(
        self,
        count: int,
        rate: float,
        size: int,
        *,
        channel: str = "bench",
        spread: int = 1,
        batch: int = 1,
        greenlets: int = 1,
        kind: str = "",
    ) -> dict[str, Any]:
        """Sends each event to each stream by a separate `send()`, for any `batch`: this defines the limit."""
        return self._ask(f"send {count} {rate} {size} 1")

    def beat(self, seconds: float, interval: float) -> dict[str, Any]:
        return self._ask(f"beat {seconds} {interval}")

    def miss(self, count: int, size: int) -> tuple[str, tuple[str, ...]]:
        self._ask(f"replay {count} {size}")
        return self.path("bench"), ()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer
