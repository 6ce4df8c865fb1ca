"""The plain app, with views that fork the worker in many ways, and with a run that notes its steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import gevent
from flask import request
from gevent import monkey

from flask_sse_push import sse

from .plain import app

SLEEPS: dict[str, Callable[[float], None]] = {
    "native": monkey.get_original("time", "sleep"),
    "gevent": gevent.sleep,
}
native_fork = monkey.get_original("os", "fork")
pools: list[ProcessPoolExecutor] = []


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


# -- children that publish and sleep -------------------------------------------------------------------------


def work(sleep: str, seconds: float) -> None:
    """Runs in the child: publishes its process id, sleeps, and publishes again."""
    with app.app_context():
        sse.publish({"began": os.getpid()}, channel="children")
        SLEEPS[sleep](seconds)
        sse.publish({"ended": os.getpid()}, channel="children")


def with_os(sleep: str, seconds: float) -> None:
    if os.fork() == 0:
        try:
            work(sleep, seconds)
        finally:
            os._exit(0)


def with_process(sleep: str, seconds: float, method: str = "fork") -> None:
    context: Any = multiprocessing.get_context(method)
    context.Process(target=work, args=(sleep, seconds)).start()


def with_pool(sleep: str, seconds: float) -> None:
    pools.append(ProcessPoolExecutor(1, multiprocessing.get_context("fork")))
    pools[-1].submit(work, sleep, seconds)


def with_subprocess(sleep: str, seconds: float) -> None:
    """The child is another program. `preexec_fn` runs before the program starts."""
    subprocess.Popen([sys.executable, "-c", SCRIPT, sleep, str(seconds)], preexec_fn=lambda: os.setpgrp())


SCRIPT = """
import sys
from tests.apps.forking import work
work(sys.argv[1], float(sys.argv[2]))
"""


def in_native_thread(sleep: str, seconds: float) -> None:
    def fork() -> None:
        if native_fork() == 0:
            try:
                work(sleep, seconds)
            finally:
                os._exit(0)

    gevent.get_hub().threadpool.apply(fork)


WAYS: dict[str, Callable[[str, float], None]] = {
    "os.fork": with_os,
    "Process": with_process,
    "ProcessPoolExecutor": with_pool,
    "subprocess": with_subprocess,
    "native thread": in_native_thread,
    "spawn": lambda sleep, seconds: with_process(sleep, seconds, "spawn"),
    "forkserver": lambda sleep, seconds: with_process(sleep, seconds, "forkserver"),
}


@app.post("/fork")
def start_child() -> str:
    WAYS[request.args["way"]](request.args["sleep"], float(request.args["seconds"]))
    return str(os.getpid())


# -- a run ---------------------------------------------------------------------------------------------------


def noted_steps(path: str, steps: int, forks_at: int) -> Iterator[str]:
    """Yields numbers. Notes in a file which process takes each step, and which process ends the run."""

    def note(what: object) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {what}\n")

    try:
        for step in range(steps):
            note(step)
            if step == forks_at:
                with_process("gevent", 0.5)
            yield f"{step} "
            time.sleep(0.05)
    finally:
        note("end")


@app.post("/run")
def run() -> str:
    arguments = request.args
    items = noted_steps(arguments["path"], int(arguments["steps"]), int(arguments["forks_at"]))
    return sse.start(items, arguments["key"]).cursor
