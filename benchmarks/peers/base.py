"""What every server under test must tell and do: the interface of a peer."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..process import kill, spawn, tree, wait_for_port
from ..redis_server import INSTALL as INSTALL_REDIS
from ..redis_server import RedisServer, find_binary, version_of

STEADY, ONE_STREAM, BURST, IDLE, HANDSHAKE, STORM, HEARTBEAT, GROUPS, PUBLISH, DEPARTURE = CASES = (
    "steady", "one-stream", "burst", "idle", "handshake",
    "storm", "heartbeat", "groups", "publish", "departure",
)  # fmt: skip

#: Seconds between the heartbeats of servers that send them.
HEARTBEAT_INTERVAL = 15


@dataclass(frozen=True)
class Desk:
    """What a run gives to its peers."""

    python: Path  # interpreter of the Python servers and of the publisher
    build: Path  # the compiled C programs
    logs: Path
    server_cpu: int
    client_cpu: int


class Peer:
    """One server under test. A subclass says what is special; an object may be started many times."""

    name: str
    title: str
    #: Cases that it can take part in.
    cases: frozenset[str] = frozenset(CASES)
    #: Events a second in the steady case, and events in a burst: fewer where all of them would need minutes.
    rate: float = 20
    burst: int = 500
    #: Whether events can be published to it at all.
    publishes = True
    #: Streams it can hold at all.
    max_streams: int = 1_000_000
    #: Whether it needs a Redis, and the kind of publisher that reaches it.
    uses_redis = False
    publisher = "http-lines"
    #: Request headers of its streams.
    headers: tuple[str, ...] = ()
    #: Python distributions whose versions belong into the table; all must be installed.
    distributions: tuple[str, ...] = ()

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.port = 0
        self.redis: RedisServer | None = None
        self.process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    # -- what a subclass says ------------------------------------------------------------------------

    def command(self) -> Sequence[str | Path]:
        """The command that serves on `self.port`, in the foreground."""
        raise NotImplementedError

    def env(self) -> Mapping[str, str]:
        return {}

    def path(self, channels: str) -> str:
        """The stream's path; `channels` are names joined by commas, maybe with `%d`."""
        return f"/stream?channels={channels}"

    def missing(self) -> str | None:
        """None when everything is installed, else how to install it."""
        if self.uses_redis and not find_binary(self.desk.python):
            return INSTALL_REDIS
        absent = [name for name, version in self.versions().items() if not version]
        return f"no {', '.join(absent)}: python -m benchmarks.setup" if absent else None

    def versions(self) -> dict[str, str]:
        """Name and version of each part; an empty version means that it is not installed."""
        versions = python_versions(self.desk.python, self.distributions)
        binary = find_binary(self.desk.python) if self.uses_redis else None
        return {**versions, **version_of(binary)} if binary else versions

    def nudge(self) -> None:
        """Called while streams open: a server that says nothing before its first event must say something."""

    def miss(self, count: int, size: int) -> tuple[str, tuple[str, ...]]:
        """Publishes `count` events and returns path and headers of a stream that has missed exactly these."""
        raise NotImplementedError

    # -- the same for all ----------------------------------------------------------------------------

    def start(self, port: int, cpu: int) -> None:
        """Starts the server; returns when it accepts connections."""
        self.port = port
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        if self.uses_redis:
            binary = find_binary(self.desk.python)
            assert binary is not None
            self.redis = RedisServer(binary, self.desk.client_cpu, self.desk.logs / "redis.log")
        self.process = self.launch(cpu)
        wait_for_port(port, self.process)

    def launch(self, cpu: int) -> subprocess.Popen[str]:
        return spawn(self.command(), cpu, env=self.env(), log=self.desk.logs / f"{self.name}.log")

    def stop(self) -> None:
        if self.process:
            kill(self.process)
        if self.redis:
            self.redis.stop()
        if self._folder:
            self._folder.cleanup()
        self.process = self.redis = self._folder = None

    def pids(self) -> list[int]:
        """The processes whose CPU and memory count: the server's, without Redis."""
        assert self.process is not None
        return tree(self.process.pid)

    @property
    def folder(self) -> Path:
        """A private folder, removed at `stop`."""
        assert self._folder is not None
        return Path(self._folder.name)

    @property
    def redis_url(self) -> str:
        assert self.redis is not None
        return self.redis.url

    def publish(
        self,
        count: int,
        rate: float,
        size: int,
        *,
        channel: str = "bench",
        spread: int = 1,
        batch: int = 1,
    ) -> dict[str, Any]:
        """Publishes from another process on the client's core; blocks until it is done.

        :param rate: events a second; 0 is as fast as they go.
        :param size: bytes of each event's data.
        :param spread: number of channels that `%d` in `channel` runs through.
        """
        target = self.redis_url if self.uses_redis else f"127.0.0.1:{self.port}"
        command: list[str | Path] = [self.desk.python, "-m", "benchmarks.publisher", self.publisher, target]
        command += ["--channel", channel, "--spread", str(spread), "--batch", str(batch)]
        command += ["--count", str(count), "--rate", str(rate), "--size", str(size)]
        log = self.desk.logs / f"{self.name}-publisher.log"
        process = spawn(command, self.desk.client_cpu, pipes=True, log=log)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the publisher failed; see {log}")
        report: dict[str, Any] = json.loads(output)
        return report


class GunicornPeer(Peer):
    """An app on one gunicorn worker with gevent."""

    app: str

    def command(self) -> Sequence[str | Path]:
        config = Path(__file__).with_name("gunicorn.conf.py")
        bind = f"127.0.0.1:{self.port}"
        return [self.desk.python, "-m", "gunicorn", "-c", config, "--bind", bind, self.app]


def python_versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    code = (
        "import sys, json, importlib.metadata as m\n"
        "def v(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return ''\n"
        "found = {n: v(n) for n in sys.argv[1:]}\n"
        "print(json.dumps({**found, 'python': '.'.join(map(str, sys.version_info[:3]))} if found else {}))"
    )
    found = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(found.stdout)
    return versions
