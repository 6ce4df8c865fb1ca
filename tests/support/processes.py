"""Starts real servers for tests: gunicorn with a test app, Debian's redis-server. Finds free ports."""

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


#: Lower than the ports that the kernel gives to outgoing connections. Such a connection could otherwise take
#: the port of a server that is down.
PORTS = range(12_000, 30_000)
#: The file with the last port that a test of this user got.
_LAST_PORT = Path(tempfile.gettempdir()) / f"flask-sse-push-tests-{os.getuid()}.port"


def free_port() -> int:
    """A TCP port on which nothing listens. No other test gets it until all ports were used once."""
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
    """The path of an installed program. If it is missing, the test fails in CI, and is skipped elsewhere."""
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


#: What reading a file of a process in /proc raises if the process ends meanwhile.
ENDED = (FileNotFoundError, ProcessLookupError)


def has_ended(pid: int) -> bool:
    """Whether a process has ended. Its parent may not have noticed that yet."""
    try:
        return state_of(pid) == "Z"
    except ENDED:
        return True


def processor_seconds(pid: int) -> float:
    """How long a process has kept a processor busy."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connections_of(pid: int) -> set[str]:
    """The TCP connections of a process, by the numbers of their sockets in the kernel."""
    sockets = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{number}").removeprefix("socket:[").removesuffix("]"))
        except ENDED:  # another thread of the process, or its end, has closed the file
            continue
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[3] != "0A" and line[9] in sockets}  # 0A: it listens


def accepts(port: int) -> bool:
    """Whether a server listens on the local port."""
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
        """Pids of the workers that are alive."""
        pids: list[int] = []
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(*ENDED):
                pids += map(int, children.read_text().split())
        return sorted(pid for pid in pids if not has_ended(pid))

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 35.0) -> int:
        """Sends a signal and waits until the master ends; returns the exit code."""
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
    """Runs `app` (e.g. `tests.apps.plain:app`) until the block ends. Does not read gunicorn.conf.py."""
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
    """Stops gunicorn. A worker that is just starting misses the master's signal, so this repeats it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
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
    """Runs Debian's redis-server until the block ends; yields its URL."""
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
    """Waits until the server answers a ping."""

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError, OSError), redis.Redis.from_url(url) as client:
            return bool(client.ping())
        return False

    eventually(answers, 15)
