"""The plain app, with views that fork the worker in many ways, and with a run that notes its steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import gevent
from flask import Request, Response, request
from gevent import monkey

from flask_sse_push import sse

from .plain import app

#: A child that has not ended by itself is killed after so many seconds.
LONGEST = 120

SLEEPS: dict[str, Callable[[float], None]] = {
    "native": monkey.get_original("time", "sleep"),
    "gevent": gevent.sleep,
}
native_fork = monkey.get_original("os", "fork")


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
    signal.alarm(LONGEST)  # no code handles this signal, so the child ends whatever it waits for
    with app.app_context():
        sse.publish({"began": os.getpid()}, channel="children")
        SLEEPS[sleep](seconds)
        sse.publish({"ended": os.getpid()}, channel="children")


def with_os(sleep: str, seconds: float, fork: Callable[[], int] = os.fork) -> int:
    pid = fork()
    if pid == 0:
        try:
            work(sleep, seconds)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return pid


def with_process(sleep: str, seconds: float, method: str = "fork") -> int:
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=work, args=(sleep, seconds))
    child.start()
    return int(child.pid)


def with_pool(sleep: str, seconds: float) -> int:
    """The child ends after its work. The child of an open pool would wait for more work for ever."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    pool.submit(work, sleep, seconds)
    pid = next(iter(pool._processes))
    pool.shutdown(wait=False)
    return pid


def with_subprocess(sleep: str, seconds: float) -> int:
    """The child is another program. `preexec_fn` runs before the program starts."""
    command = [sys.executable, "-c", SCRIPT, sleep, str(seconds)]
    return subprocess.Popen(command, preexec_fn=lambda: os.setpgrp()).pid


SCRIPT = """
import sys
from tests.apps.forking import work
work(sys.argv[1], float(sys.argv[2]))
"""


def in_native_thread(sleep: str, seconds: float) -> int:
    pid: int = gevent.get_hub().threadpool.apply(with_os, (sleep, seconds, native_fork))
    return pid


WAYS: dict[str, Callable[[str, float], int]] = {
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
    """Starts a child. Returns its process id. The requests that wait go on in both processes."""
    slow.clear()
    return str(WAYS[request.args["way"]](request.args["sleep"], float(request.args["seconds"])))


# -- requests that take time ---------------------------------------------------------------------------------

slow: list[str] = []  # the hooks that wait for the next fork


def wait_in(hook: str) -> None:
    if request.args.get("slow") == hook:
        slow.append(hook)
        while hook in slow:
            time.sleep(0.01)


@app.before_request
def before() -> None:
    wait_in("before")


@app.after_request
def after(response: Response) -> Response:
    wait_in("after")
    return response


@sse.identify
def identify(request: Request) -> None:
    wait_in("rule")


@app.get("/slow")
def count_slow() -> str:
    return str(len(slow))


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
