"""`tests.apps.plain` with two more views: what the worker holds, and how long its event loop was blocked."""

from __future__ import annotations

import gc
import os
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from greenlet import greenlet

from flask_sse_push import sse
from tests.support.memory import allocated, give_back, resident_kb

from .plain import app

__all__ = ["app"]

_broker_port = urlsplit(os.environ.get("SSE_PUSH_BROKER_URL", "")).port
#: The loop counts as blocked when it wakes up more than these seconds late.
LONG = 0.1

#: For how many seconds the loop was blocked, since when, and how many seconds of CPU its longest turn took.
_blocked = {"seconds": 0.0, "since": time.monotonic(), "longest": 0.0}


def _files() -> int:
    """How many files are open. Leaves out connections to the broker, whose pool may still grow."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            is_socket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
            count += not (is_socket and _is_connected_to_broker(int(name)))
    return count


def _is_connected_to_broker(fd: int) -> bool:
    end = socket.socket(fileno=os.dup(fd))
    try:
        address = end.getpeername()
        return len(address) > 1 and address[1] == _broker_port
    except OSError:
        return False
    finally:
        end.close()


def _measure_blocking() -> None:
    while True:
        began, used = time.monotonic(), time.thread_time()
        time.sleep(0.005)
        late = time.monotonic() - began - 0.005
        _blocked["longest"] = max(_blocked["longest"], time.thread_time() - used)
        _blocked["seconds"] += late if late > LONG else 0.0


@app.get("/inspect")
def inspect() -> dict[str, Any]:
    """What the worker holds: streams, groups, greenlets, files and memory."""
    gc.collect()
    objects = gc.get_objects()
    alive = [found for found in objects if isinstance(found, greenlet) and not found.dead]
    return {
        "pid": os.getpid(),
        **sse.stats(),
        "greenlets": len(alive),
        "files": _files(),
        "resident_kb": resident_kb(os.getpid()),
        "objects": len(objects),
        "blocks": sys.getallocatedblocks(),
    }


@app.get("/memory")
def memory() -> dict[str, int]:
    """The worker's memory in kB, after it has given back what it does not use."""
    gc.collect()
    give_back()
    held = {"pid": os.getpid(), "resident_kb": resident_kb(os.getpid()), **allocated()}
    return {**held, "objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}


@app.get("/blocked")
def blocked() -> dict[str, Any]:
    """The share of the time since the last call during which the loop was blocked, and its longest turn."""
    if not any(thread.name == "loop-watch" for thread in threading.enumerate()):
        threading.Thread(target=_measure_blocking, name="loop-watch", daemon=True).start()
    now = time.monotonic()
    share, longest = _blocked["seconds"] / (now - _blocked["since"]), _blocked["longest"]
    _blocked.update(seconds=0.0, since=now, longest=0.0)
    return {"pid": os.getpid(), "share": share, "longest": longest}
