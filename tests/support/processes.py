"""Real servers for tests: gunicorn with an app of ours, Debian's redis-server, ports that are free."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from .deadline import eventually

ROOT = Path(__file__).parents[2]
NO_CONFIG = Path(__file__).with_name("empty.conf.py")


#: Below the ports that the kernel gives to outgoing connections, which could take one whose server is down.
PORTS = range(12_000, 30_000)
#: The last port that a test of this user was given.
_LAST_PORT = Path(tempfile.gettempdir()) / f"flask-sse-push-tests-{os.getuid()}.port"


def free_port() -> int:
    """A TCP port nobody listens on, which no other test gets soon, of other processes either."""
    with _LAST_PORT.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = int(file.read() or 0)
        for _ in PORTS:
            last = last + 1 if last + 1 in PORTS else PORTS[0]
            if _is_free(last):
                break
        else:
            raise RuntimeError(f"all ports of {PORTS} are taken")
        file.truncate(0)
        file.write(str(last))
        return last


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def need(program: str) -> str:
    """The path of an installed program. Without it the test is skipped at the desk and fails in CI."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def state_of(pid: int) -> str:
    """The state letter of a process, as in `ps`; T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def accepts(port: int) -> bool:
    """Whether something listens on the local port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Gunicorn:
    """A running gunicorn master."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker_pids(self) -> list[int]:
        """Pids of the workers alive now."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sorted(int(pid) for children in tasks for pid in children.read_text().split())

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 35.0) -> int:
        """Sends a signal and waits for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def gunicorn(
    app: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    workers: int = 1,
    worker_class: str = "gevent",
    log: Path,
    port: int | None = None,
    config: Path = NO_CONFIG,
) -> Iterator[Gunicorn]:
    """Runs `app` (e.g. `tests.apps.plain:app`) until the block ends, without the project's configuration."""
    port = port or free_port()
    command = [sys.executable, "-m", "gunicorn", app, "-k", worker_class, "-w", str(workers)]
    command += [
        "-c",
        str(config),
        "-b",
        f"127.0.0.1:{port}",
        "--log-level",
        "debug",
        "--capture-output",
        *options,
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=output, stderr=output
        )
    server = Gunicorn(process, port, log)
    try:
        eventually(lambda: process.poll() is not None or accepts(port), 20)
        assert process.poll() is None, log.read_text()
        eventually(lambda: len(server.worker_pids()) == workers, 10)
        yield server
    finally:
        end(process, server)


def end(process: subprocess.Popen[bytes], server: Gunicorn) -> None:
    """Stops gunicorn. A worker that was just being born does not hear the master, so it is told again."""
    if process.poll() is not None:
        return
    process.terminate()
    for _ in range(35):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return
        for pid in server.worker_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    process.kill()
    process.wait()


@contextlib.contextmanager
def redis_server(folder: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """Debian's redis-server; yields its URL."""
    program = need("redis-server")
    port = port or free_port()
    command = [program, "--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for_redis(url)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def wait_for_redis(url: str) -> None:
    """Returns when the server answers a ping."""

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError, OSError), redis.Redis.from_url(url) as client:
            return bool(client.ping())
        return False

    eventually(answers, 15)
