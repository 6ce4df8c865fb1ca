"""What the doors take, on two workers with a Redis: `python -m benchmarks.doors`. Prints milliseconds.

Logout: a user with three streams, on both workers, signs out by flask-login; from the request to the end
of the last stream's body. Refusal: a user with five streams asks for a sixth; from connecting to the
answer's head. Ghosts: a worker that holds some of five streams is killed; until the user may open another
one, by the lease as it is set. Run it with an interpreter that has flask_sse_push and its extras:
.venv/bin/python.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .peers.push.driver import PushHijack
from .process import free_port
from .run import desk

#: Streams that a user may have.
MOST = 5
#: Seconds that each wait lasts at most.
PATIENCE = 120


class Members(PushHijack):
    """Two workers with users."""

    name = "members"
    app = "benchmarks.peers.push.members:app"

    def command(self) -> Sequence[str | Path]:
        *words, app = super().command()
        return [*words, "-w", "2", app]

    def env(self) -> Mapping[str, str]:
        doors = {"SSE_PUSH_PUBLIC_CHANNELS": "nothing", "SSE_PUSH_MAX_STREAMS_PER_USER": str(MOST)}
        return {**super().env(), **doors}


class User:
    """Somebody who has signed in, and the streams."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.name = secrets.token_hex(4)
        self._cookie = ""
        self._streams: list[http.client.HTTPResponse] = []
        answer = self.ask("POST", f"/login/{self.name}")
        self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def ask(self, method: str, path: str) -> http.client.HTTPResponse:
        """One request on a connection of its own, which no other worker is asked for."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        connection.request(method, path, headers={"Cookie": self._cookie, "Connection": "close"})
        return connection.getresponse()

    def open(self) -> int:
        """Opens a stream, and returns the status."""
        answer = self.ask("GET", "/stream?channels=bench")
        if answer.status == 200:
            answer.readline()  # it is live
            self._streams.append(answer)
        return answer.status

    def connections(self) -> list[dict[str, Any]]:
        """What any worker lists of them."""
        found: list[dict[str, Any]] = json.loads(self.ask("GET", f"/connections/{self.name}").read())
        return found

    def ends(self) -> list[float]:
        """When each stream's body ended, monotonic seconds. Blocks until all have."""
        found: list[float] = []

        def read(stream: http.client.HTTPResponse) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                stream.read()
            found.append(time.monotonic())

        threads = [threading.Thread(target=read, args=(stream,)) for stream in self._streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return found

    def leave(self) -> None:
        while self._streams:
            self._streams.pop().close()

    def spread(self, count: int) -> None:
        """Opens `count` streams, on both workers: which of them takes a connection is chance."""
        for _ in range(100):
            for _ in range(count):
                self.open()
            _until(lambda: len(self.connections()) == count)
            if len({each["worker"] for each in self.connections()}) == 2:
                return
            self.leave()
            _until(lambda: not self.connections())
        raise RuntimeError("all streams go to one worker")


def logout(port: int) -> float:
    """Milliseconds of one logout."""
    user = User(port)
    user.spread(3)
    began: list[float] = []

    def sign_out() -> None:
        time.sleep(0.2)  # all streams are being read by now
        began.append(time.monotonic())
        user.ask("POST", "/logout").read()

    thread = threading.Thread(target=sign_out)
    thread.start()
    last = max(user.ends())
    thread.join()
    return (last - began[0]) * 1e3


def refusals(port: int, times: int) -> list[float]:
    """Milliseconds of each refusal of one stream too many."""
    user = User(port)
    user.spread(MOST)
    found = []
    for _ in range(times):
        began = time.monotonic()
        status = user.open()
        found.append((time.monotonic() - began) * 1e3)
        if status != 429:
            raise RuntimeError(f"stream {MOST + 1} was answered with {status}")
    user.leave()
    return found


def ghosts(peer: Members) -> float:
    """Milliseconds from a worker's death until its streams are not held against their user any more."""
    user = User(peer.port)
    user.spread(MOST)
    assert peer.process
    victim = next(pid for pid in peer.pids() if pid != peer.process.pid)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _until(lambda: user.open() == 200, pause=0.1)
    taken = (time.monotonic() - began) * 1e3
    user.leave()
    return taken


def _until(condition: Callable[[], object], pause: float = 0.02) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing has changed for {PATIENCE} s")
        time.sleep(pause)


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"times": len(ordered), "median_ms": statistics.median(ordered), "worst_ms": ordered[-1]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors")
    parser.add_argument("--logouts", type=int, default=20)
    parser.add_argument("--refusals", type=int, default=100)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    peer = Members(desk(Path(sys.executable)))
    try:
        peer.start(free_port(), peer.desk.server_cpu)
        found = {
            "logout to the last end": summary([logout(peer.port) for _ in range(options.logouts)]),
            "refusal of one too many": summary(refusals(peer.port, options.refusals)),
            "ghosts of a killed worker": summary([ghosts(peer) for _ in range(options.kills)]),
        }
    finally:
        peer.stop()
    for name, figures in found.items():
        print(f"{name:27}" + "  ".join(f"{key} {value:,.1f}" for key, value in figures.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
