"""Machines: network namespaces, each with its own address and cable to the test's namespace. Needs root."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .deadline import eventually
from .processes import NO_CONFIG, ROOT, Gunicorn, end

#: Where gunicorn listens on each machine.
PORT = 8000


class MachineServer(Gunicorn):
    """A gunicorn master on a machine."""

    address = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"


@dataclass
class Machine:
    """A network namespace. `host` is the test's address as the machine sees it."""

    name: str
    address: str
    host: str

    @contextlib.contextmanager
    def gunicorn(self, app: str, log: Path, env: Mapping[str, str]) -> Iterator[MachineServer]:
        """Runs `app` with one gevent worker until the block ends."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", "gunicorn", app, "-k", "gevent"]
        command += ["-c", str(NO_CONFIG), "-b", f"{self.address}:{PORT}", "--log-level", "debug"]
        command += ["--capture-output"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **env}, stdout=output, stderr=output
            )
        server = MachineServer(process, PORT, log)
        server.address = self.address
        try:
            eventually(lambda: process.poll() is not None or _accepts(self.address), 60)
            assert process.poll() is None, log.read_text()
            eventually(lambda: len(server.worker_pids()) == 1, 30)
            yield server
        finally:
            end(process, server)

    def unplug(self) -> None:
        """Cuts its cable: no packet gets in or out, and no connection is closed."""
        _ip("link", "set", f"{self.name}h", "down")


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Makes `count` machines. Skips the test, with the reason, if this process cannot make namespaces."""
    if os.geteuid():
        pytest.skip("network namespaces need root")
    ready: list[Machine] = []
    try:
        for _ in range(count):
            ready.append(_make())
        yield ready
    finally:
        for machine in ready:
            _ip("netns", "delete", machine.name)  # this deletes the cable too


def _make() -> Machine:
    name = f"sse{secrets.token_hex(4)}"
    net = f"10.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
    machine = Machine(name, f"{net}.2", f"{net}.1")
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a network namespace cannot be made: {getattr(error, 'stderr', error)}")
    try:
        _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
    except subprocess.CalledProcessError as error:
        _ip("netns", "delete", name)
        pytest.skip(f"a virtual cable cannot be made: {error.stderr}")
    _ip("addr", "add", f"{machine.host}/30", "dev", f"{name}h")
    _ip("link", "set", f"{name}h", "up")
    for command in (
        ("addr", "add", f"{machine.address}/30", "dev", "eth0"),
        ("link", "set", "lo", "up"),
        ("link", "set", "eth0", "up"),
    ):
        _ip("-netns", name, *command)
    return machine


#: Written at each change of the network. Tests of this user in other processes look at its time.
_CHANGED = Path(tempfile.gettempdir()) / f"flask-sse-push-tests-{os.getuid()}.network"


def network_changed_since(when: float) -> bool:
    """Whether a test of this user has changed the network since `when`, in seconds since the epoch."""
    return _CHANGED.exists() and _CHANGED.stat().st_mtime >= when


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
    _CHANGED.touch()


def _accepts(address: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, PORT)) == 0
