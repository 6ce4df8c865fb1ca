"""The plain app, with views that fork the worker. The child ends by itself or is terminated."""

from __future__ import annotations

import os
import signal
import sys
import time

from .plain import app


def fork(seconds: float) -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        sys.exit(0)
    return pid


@app.get("/exit")
def end_child() -> str:
    return str(fork(0.3))


@app.get("/terminate")
def terminate_child() -> str:
    pid = fork(1.0)
    time.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    return str(pid)
