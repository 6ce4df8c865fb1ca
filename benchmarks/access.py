"""How fast do logout, limits and leases act? `python -m benchmarks.access` prints milliseconds.

It runs two workers with a Redis and measures three times:

- **Logout**: a user has three streams, on both workers, and signs out with flask-login. The time runs from
  the request to the end of the last stream.
- **Refusal**: a user has five streams and asks for a sixth. The time runs from connecting to the head of the
  answer.
- **Killed worker**: a worker with some of a user's five streams is killed. The time runs until the user can
  open another stream, because the worker's lease has expired.

Run it with an interpreter that has flask_sse_push and its extras, such as .venv/bin/python.
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
from .run import prepare

#: Number of streams that a user may have.
MOST = 5
#: Seconds after which a wait fails.
PATIENCE = 120


class Members(PushHijack):
    """flask_sse_push with users, on two workers."""

    name = "members"
    app = "benchmarks.peers.push.members:app"

    def command(self) -> Sequence[str | Path]:
        *words, app = super().command()
        return [*words, "-w", "2", app]

    def env(self) -> Mapping[str, str]:
        access = {"SSE_PUSH_PUBLIC_CHANNELS": "nothing", "SSE_PUSH_MAX_STREAMS_PER_USER": str(MOST)}
        return {**super().env(), **access}


class User:
    """A user who has signed in, and the user's open streams."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.name = secrets.token_hex(4)
        self._cookie = ""
        self._streams: list[http.client.HTTPResponse] = []
        answer = self.request("POST", f"/login/{self.name}")
        self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def request(self, method: str, path: str) -> http.client.HTTPResponse:
        """Sends a request on a new connection, which either worker may accept."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        connection.request(method, path, headers={"Cookie": self._cookie, "Connection": "close"})
        return connection.getresponse()

    def open(self) -> int:
        """Requests a stream; returns the status."""
        answer = self.request("GET", "/stream?channels=bench")
        if answer.status == 200:
            answer.readline()  # the stream has opened
            self._streams.append(answer)
        return answer.status

    def connections(self) -> list[dict[str, Any]]:
        """Returns the user's streams on both workers, as `sse.connections()` lists them."""
        found: list[dict[str, Any]] = json.loads(self.request("GET", f"/connections/{self.name}").read())
        return found

    def ends(self) -> list[float]:
        """Returns the time at which each stream ended, in monotonic seconds. Blocks until all have ended."""
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
        """Opens `count` streams on both workers. Repeats it until both have some, because chance decides."""
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
    """Measures one logout, in milliseconds."""
    user = User(port)
    user.spread(3)
    began: list[float] = []

    def sign_out() -> None:
        time.sleep(0.2)  # by now `ends` reads all streams
        began.append(time.monotonic())
        user.request("POST", "/logout").read()

    thread = threading.Thread(target=sign_out)
    thread.start()
    last = max(user.ends())
    thread.join()
    return (last - began[0]) * 1e3


def refusals(port: int, times: int) -> list[float]:
    """Measures refusals of one stream too many, in milliseconds each."""
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


def killed_worker(peer: Members) -> float:
    """Measures the milliseconds from a worker's death until its streams no longer count for their user."""
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
            raise RuntimeError(f"the condition is not met after {PATIENCE} s")
        time.sleep(pause)


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"times": len(ordered), "median_ms": statistics.median(ordered), "worst_ms": ordered[-1]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.access")
    parser.add_argument("--logouts", type=int, default=20)
    parser.add_argument("--refusals", type=int, default=100)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    peer = Members(prepare(Path(sys.executable)))
    try:
        peer.start(free_port(), peer.settings.server_cpu)
        found = {
            "logout to end of last stream": summary([logout(peer.port) for _ in range(options.logouts)]),
            "refusal of one stream too many": summary(refusals(peer.port, options.refusals)),
            "killed worker to new stream": summary([killed_worker(peer) for _ in range(options.kills)]),
        }
    finally:
        peer.stop()
    for name, figures in found.items():
        print(f"{name:32}" + "  ".join(f"{key} {value:,.1f}" for key, value in figures.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
