"""The folder with the files that all workers of the demo share."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .logs import logfile

#: Seconds between two looks whether another worker still has a lock.
LOOK = 0.01


def path() -> Path:
    """Returns the folder of the log file. Without a log file, returns a folder of this process alone."""
    log = logfile.path()
    return log.parent if log else _own()


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Lets one worker at a time run the block.

    Waits with `time.sleep`, which lets the worker go on with other requests.
    """
    with (path() / f"{name}.lock").open("a") as file:
        while not _locked(file.fileno()):
            time.sleep(LOOK)
        yield


def _locked(file: int) -> bool:
    """Locks a file until it is closed. Returns whether it could."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache
def _own() -> Path:
    """Makes a folder that is removed when this process ends."""
    made = Path(tempfile.mkdtemp(prefix="sse-push-demo-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
