"""The interface of a peer, that is, of a server under test."""

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

STEADY, ONE_STREAM, BURST, IDLE, HANDSHAKE, STORM, HEARTBEAT, GROUPS, USERS, PUBLISH, DEPARTURE = CASES = (
    "steady", "one-stream", "burst", "idle", "handshake",
    "storm", "heartbeat", "groups", "users", "publish", "departure",
)  # fmt: skip

#: Seconds between the heartbeats of servers that send them.
HEARTBEAT_INTERVAL = 15


@dataclass(frozen=True)
class Settings:
    """The settings of a run, the same for all its peers."""

    python: Path  # interpreter of the Python servers and of the publisher
    build: Path  # folder of the compiled C programs
    logs: Path
    server_cpu: int | None  # None: any core
    client_cpu: int | None


class Peer:
    """One server under test. It can be started many times. Subclasses define what differs between servers."""

    name: str
    title: str
    #: Cases that the server supports.
    cases: frozenset[str] = frozenset(CASES)
    #: Events per second in the steady case, and events in a burst. Slow servers get fewer, to save minutes.
    rate: float = 20
    burst: int = 500
    #: Whether the server accepts events.
    publishes = True
    #: Maximum number of streams.
    max_streams: int = 1_000_000
    #: Whether the server needs a Redis, and its kind of publisher in publisher.py.
    uses_redis = False
    publisher = "http-lines"
    #: Request headers of the streams.
    headers: tuple[str, ...] = ()
    #: Python distributions that must be installed. The report lists their versions.
    distributions: tuple[str, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = 0
        self.redis: RedisServer | None = None
        self.process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    # -- for subclasses ------------------------------------------------------------------------------

    def command(self) -> Sequence[str | Path]:
        """Returns the command that serves on `self.port`, in the foreground."""
        raise NotImplementedError

    def env(self) -> Mapping[str, str]:
        return {}

    def path(self, channels: str) -> str:
        """Returns the path of a stream. `channels` are names joined by commas, which may contain `%d`."""
        return f"/stream?channels={channels}"

    def missing(self) -> str | None:
        """Returns None if everything is installed, else how to install what is missing."""
        if self.uses_redis and not find_binary(self.settings.python):
            return INSTALL_REDIS
        absent = [name for name, version in self.versions().items() if not version]
        return f"no {', '.join(absent)}: python -m benchmarks.setup" if absent else None

    def versions(self) -> dict[str, str]:
        """Returns the version of each part by its name; an empty version means that it is not installed."""
        versions = python_versions(self.settings.python, self.distributions)
        binary = find_binary(self.settings.python) if self.uses_redis else None
        return {**versions, **version_of(binary)} if binary else versions

    def nudge(self) -> None:
        """Called while streams open. A server that sends no headers before its first event publishes one
        here."""

    def miss(self, count: int, size: int) -> tuple[str, tuple[str, ...]]:
        """Publishes `count` events. Returns the path and headers of a stream that has missed exactly
        these."""
        raise NotImplementedError

    # -- for all servers -----------------------------------------------------------------------------

    def start(self, port: int, cpu: int | None) -> None:
        """Starts the server; returns when it accepts connections."""
        self.port = port
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        if self.uses_redis:
            binary = find_binary(self.settings.python)
            assert binary is not None
            self.redis = RedisServer(binary, self.settings.client_cpu, self.settings.logs / "redis.log")
        self.process = self.launch(cpu)
        wait_for_port(port, self.process)

    def launch(self, cpu: int | None) -> subprocess.Popen[str]:
        return spawn(self.command(), cpu, env=self.env(), log=self.settings.logs / f"{self.name}.log")

    def give_redis_the_servers_core(self) -> None:
        """Moves Redis, if the server has one, from the clients' core to the server's core."""
        if self.redis and self.settings.server_cpu is not None:
            self.redis.move_to(self.settings.server_cpu)

    def stop(self) -> None:
        if self.process:
            kill(self.process)
        if self.redis:
            self.redis.stop()
        if self._folder:
            self._folder.cleanup()
        self.process = self.redis = self._folder = None

    def pids(self) -> list[int]:
        """Returns the server's processes, whose CPU and memory count. Redis is not among them."""
        assert self.process is not None
        return tree(self.process.pid)

    @property
    def folder(self) -> Path:
        """Returns a folder for the server's files, which `stop` removes."""
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
        greenlets: int = 1,
        kind: str = "",
    ) -> dict[str, Any]:
        """Publishes from another process on the clients' core; blocks until it is done. Returns its report.

        :param rate: Events per second; 0 means as fast as possible.
        :param size: Bytes of each event's data.
        :param spread: Number of channels; `%d` in `channel` becomes a number below it.
        :param greenlets: How many greenlets of the publishing process share the events.
        :param kind: The kind of publisher, if not the server's own.
        """
        target = self.redis_url if self.uses_redis else f"127.0.0.1:{self.port}"
        command: list[str | Path] = [
            self.settings.python,
            "-m",
            "benchmarks.publisher",
            kind or self.publisher,
            target,
        ]
        command += ["--channel", channel, "--spread", str(spread), "--batch", str(batch)]
        command += ["--count", str(count), "--rate", str(rate), "--size", str(size)]
        command += ["--greenlets", str(greenlets)]
        log = self.settings.logs / f"{self.name}-publisher.log"
        process = spawn(command, self.settings.client_cpu, pipes=True, log=log)
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
        return [self.settings.python, "-m", "gunicorn", "-c", config, "--bind", bind, self.app]

    def versions(self) -> dict[str, str]:
        parser = python_versions(self.settings.python, ("gunicorn_h1c",))["gunicorn_h1c"]
        shown = f"gunicorn_h1c {parser}" if parser else "gunicorn's own"
        return {**super().versions(), "HTTP parser": shown}


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
