"""Runs the load generator: opens streams, sends it commands, and reads its report."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .peers.base import Peer
from .process import kill, spawn

#: Seconds between two nudges of a server that says nothing before its first event.
NUDGE_EVERY = 2.0


class Client:
    """`streams` open streams of one peer, closed when the block ends.

    :param events: The load generator finishes when every stream has got this many events. With 0, the streams
        stay open until `finish`.
    :param timeout: Seconds to wait for the streams to open, and then for their events.
    :param more: Further options of the load generator.
    """

    def __init__(
        self,
        peer: Peer,
        streams: int,
        *,
        path: str | None = None,
        headers: Sequence[str] = (),
        events: int = 0,
        timeout: float = 60,
        more: Sequence[str] = (),
    ) -> None:
        self._peer = peer
        # A server that needs a nudge opens its streams with the first event, so all must be connected by
        # then.
        silent = type(peer).nudge is not Peer.nudge
        command: list[str | Path] = [peer.settings.build / "loadgen", "--port", str(peer.port)]
        command += ["--streams", str(streams)]
        command += ["--path", path or peer.path("bench"), "--timeout", str(timeout)]
        command += ["--concurrency", str(streams if silent else 200)]
        for header in (*peer.headers, *headers):
            command += ["--header", header]
        command += ["--events", str(events)] if events else ["--hold"]
        command += more
        self._process = spawn(
            command, peer.settings.client_cpu, pipes=True, log=peer.settings.logs / "loadgen.log"
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        try:
            self.connect_seconds = self._wait_until_open()
        except BaseException:
            kill(self._process)
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kill(self._process)

    def command(self, line: str) -> dict[str, Any]:
        """Runs `churn M B` or `close K`; blocks until it is done. Returns the load generator's answer."""
        self._stdin.write(line + "\n")
        self._stdin.flush()
        return self._answer()

    def wait(self) -> dict[str, Any]:
        """Blocks until all events have arrived or the timeout is over; returns the report."""
        return self._answer()

    def finish(self) -> dict[str, Any]:
        """Closes the streams and returns the report."""
        return self.command("quit")

    def _answer(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"loadgen ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _wait_until_open(self) -> float:
        nudged = time.monotonic()
        # select() sees only the pipe. A read would move bytes into the file's buffer, so wait before the
        # first.
        while not select.select([self._stdout], [], [], 0.05)[0]:
            if time.monotonic() - nudged > NUDGE_EVERY:
                self._peer.nudge()
                nudged = time.monotonic()
        words = self._stdout.readline().split()
        if len(words) != 4 or words[0] != "READY":
            raise RuntimeError(f"loadgen did not get ready: {words or self._process.wait()}")
        if int(words[2]):
            raise RuntimeError(f"{words[2]} of {int(words[1]) + int(words[2])} streams did not open")
        return float(words[3])
