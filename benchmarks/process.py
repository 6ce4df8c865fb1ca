"""Starts processes on one core, measures them through /proc, and ends them with all their children."""

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
    """Raises the limit of open files to the hard limit, and returns it. Child processes inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def spawn(
    command: Sequence[str | Path],
    cpu: int | None,
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    pipes: bool = False,
    root: Path = ROOT,
) -> subprocess.Popen[str]:
    """Starts a process that runs only on the core `cpu`; so do its children. With None, they run on any core.

    :param root: The checkout in which the process runs, and from which it imports the package.
    :param log: File for the error output; also for the standard output, unless `pipes` is true.
    :param pipes: Whether this process writes to the standard input and reads the standard output.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("a")) if log else subprocess.DEVNULL
        return subprocess.Popen(
            [*([] if cpu is None else ["taskset", "-c", str(cpu)]), *map(str, command)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), **(env or {})},
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=output,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C reaches only the run, which then ends its servers
        )


def tree(pid: int) -> list[int]:
    """Returns the process and all its descendants."""
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
    """Kills a process and its children. A graceful stop would wait for the streams."""
    for pid in reversed(tree(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def cpu_seconds(pids: Sequence[int]) -> float:
    """Returns the user and system time of the processes so far, over all threads.

    It reads the kernel's CPU clock of each process. If the clock is not readable, it reads /proc/<pid>/stat,
    which shows the same time rounded to 10 ms.
    """
    return sum(map(_cpu, pids))


def _cpu(pid: int) -> float:
    try:
        # The clock id as clock_getcpuclockid() computes it; Python has this function only for threads.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / TICK


def rss_kb(pids: Sequence[int]) -> float:
    """Returns the resident memory in kB; a page shared by n processes counts 1/n in each."""
    return sum(_rss(pid) for pid in pids)


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise OSError(f"no memory figures for process {pid}")


def kernel_kb() -> float:
    """Returns the kernel's own memory on this machine in kB that it cannot reclaim; most of it is sockets."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return float(line.split()[1])
    raise OSError("no figures of the kernel's memory")


def open_files(pids: Sequence[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def _stat(pid: int) -> list[str]:
    # The process name may contain blanks and brackets. Only numbers follow its last bracket.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[str], seconds: float = 15) -> None:
    """Blocks until a process accepts connections on the port.

    :raises RuntimeError: The process ended, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with code {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"does not listen after {seconds:g} s")
