"""Runs `flask …` in processes of their own, forked from one that has the imports already (`zygote.py`)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from .processes import ROOT


@functools.cache
def _zygote() -> socket.socket:
    """Starts the process that forks. Returns the socket for the requests; closing it ends the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        file = theirs.fileno()
        command = [sys.executable, "-m", "tests.support.zygote", str(file)]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[file], stdin=subprocess.DEVNULL)
    atexit.register(process.wait, 60)
    atexit.register(ours.close)
    return ours


class FlaskProcess:
    """A running `flask …`. Threads read its output: `lines` from stdout, `remarks` from stderr."""

    def __init__(self, *arguments: str, env: Mapping[str, str], folder: Path = ROOT) -> None:
        self.lines: list[str] = []
        self.remarks: list[str] = []
        output, errors = os.pipe(), os.pipe()
        self._reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"arguments": arguments, "folder": str(folder), "env": {**os.environ, **env}}
        with theirs:
            files = [output[1], errors[1], theirs.fileno()]
            socket.send_fds(_zygote(), [json.dumps(request).encode()], files)
        os.close(output[1])
        os.close(errors[1])
        self.pid = int(self._reply.recv(100))
        self._code: int | None = None
        self._threads = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((output[0], self.lines), (errors[0], self.remarks))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, file: int, into: list[str]) -> None:
        with open(file, encoding="utf-8", newline="\n") as pipe:
            into.extend(iter(pipe.readline, ""))

    def wait(self, seconds: float) -> int:
        """Waits until the process has ended and its output is read. Returns its exit code.

        :raises TimeoutError: if the process does not end within `seconds`.
        """
        if self._code is None:
            self._reply.settimeout(seconds)
            self._code = int(self._reply.recv(100))
            self._reply.close()
        for thread in self._threads:
            thread.join(10)
        return self._code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._code is None:
                os.kill(self.pid, number)


def run_flask(
    *arguments: str, env: Mapping[str, str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Runs `flask …` to its end, and returns its exit code and output.

    :raises TimeoutError: if the command does not end within 180 seconds. Kills it first.
    """
    process = FlaskProcess(*arguments, env=env, folder=folder)
    try:
        code = process.wait(180)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(arguments, code, "".join(process.lines), "".join(process.remarks))
