"""Processes of a run: started on one core, measured through /proc, ended with all their children."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")


def raise_file_limit() -> int:
    """Raises the number of files a process may open as far as allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def spawn(
    command: Sequence[str | Path],
    cpu: int,
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    pipes: bool = False,
    root: Path = ROOT,
) -> subprocess.Popen[str]:
    """Starts a process that runs on the core `cpu` only, children included.

    :param root: the checkout that the process runs in, and whose package it imports.
    :param log: where its error output goes, and its output too unless `pipes` connects that to us.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("a")) if log else subprocess.DEVNULL
        return subprocess.Popen(
            ["taskset", "-c", str(cpu), *map(str, command)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), **(env or {})},
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=output,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C reaches the run only, which then ends its servers itself
        )


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(entry))[1])
                children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def kill(process: subprocess.Popen[str]) -> None:
    """Ends a process and its children at once: a graceful stop would wait for the streams."""
    for pid in reversed(tree(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes so far, all threads.

    The kernel's CPU clock of a process is what /proc/<pid>/stat shows, without its rounding to 10 ms; that
    file is read where the clock cannot be.
    """
    return sum(map(_cpu, pids))


def _cpu(pid: int) -> float:
    try:
        # The id that clock_getcpuclockid() makes; Python offers that function for threads only.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / TICK


def rss_kb(pids: Sequence[int]) -> float:
    """Resident memory; a page shared by n processes counts 1/n in each."""
    return sum(_rss(pid) for pid in pids)


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise OSError(f"no memory figures for process {pid}")


def kernel_kb() -> float:
    """What the kernel holds for itself on this machine and cannot give back, sockets above all."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return float(line.split()[1])
    raise OSError("no figures of the kernel's memory")


def open_files(pids: Sequence[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def _stat(pid: int) -> list[str]:
    # The name may hold blanks and brackets; what follows its last bracket is plain numbers.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[str], seconds: float = 15) -> None:
    """Returns when something accepts connections on the port.

    :raises RuntimeError: when the process ended or the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with code {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"does not listen after {seconds:g} s")
