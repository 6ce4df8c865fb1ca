"""The plain app with a look inside its worker: what it holds, and how long its loop was blocked."""

from __future__ import annotations

import gc
import os
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from greenlet import greenlet

from flask_sse_push import sse

from .plain import app

__all__ = ["app"]

_broker_port = urlsplit(os.environ.get("SSE_PUSH_BROKER_URL", "")).port
#: Seconds by which the loop must be late to count as blocked.
LONG = 0.1

_blocked = {"seconds": 0.0, "since": time.monotonic()}


def _files() -> int:
    """Open files, but for connections to the broker: their pool grows with use, up to its bound."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            is_socket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
            count += not (is_socket and _leads_to_the_broker(int(name)))
    return count


def _leads_to_the_broker(fd: int) -> bool:
    end = socket.socket(fileno=os.dup(fd))
    try:
        address = end.getpeername()
        return len(address) > 1 and address[1] == _broker_port
    except OSError:
        return False
    finally:
        end.close()


def _resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _watch_the_loop() -> None:
    while True:
        began = time.monotonic()
        time.sleep(0.005)
        late = time.monotonic() - began - 0.005
        _blocked["seconds"] += late if late > LONG else 0.0


@app.get("/witness")
def witness() -> dict[str, Any]:
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, greenlet) and not each.dead]
    return {
        "pid": os.getpid(),
        **sse.stats(),
        "greenlets": len(alive),
        "files": _files(),
        "resident_kb": _resident_kb(),
    }


@app.get("/blocked")
def blocked() -> dict[str, Any]:
    """The share of the time since the last call in which the loop was blocked for long."""
    if not any(thread.name == "loop-watch" for thread in threading.enumerate()):
        threading.Thread(target=_watch_the_loop, name="loop-watch", daemon=True).start()
    now = time.monotonic()
    share = _blocked["seconds"] / (now - _blocked["since"])
    _blocked.update(seconds=0.0, since=now)
    return {"pid": os.getpid(), "share": share}
