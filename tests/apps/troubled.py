"""`tests.apps.inspected` with everything that an app may do wrong: the app of the soak.

A user gives a name in the query. Users may listen to `slow:*`. They may listen to `club:*` while the folder
RIGHTS has the file `<user> <channel>`. The rule for these channels takes long; for `unlucky:*` it raises.
Receivers of all signals and the user loader raise now and then. `/fork` forks the worker.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from flask import Request, request
from gevent import monkey

from flask_sse_push import event_published, history_lost, sse, stream_closed, stream_opened

from .inspected import app

__all__ = ["app"]

#: The share of the calls of a receiver, and of the loader, that raise.
SHARE, LOADER_SHARE = 0.05, 0.2
#: At most so many seconds a rule takes for `slow:*`, and for `club:*`.
SLOW, BRIEF = 2.0, 0.3

#: Sleeps without letting other greenlets run.
block = monkey.get_original("time", "sleep")

raised: Counter[str] = Counter()
_rights = Path(os.environ["RIGHTS"])
_ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("trouble"), lambda: gevent.Timeout(1), lambda: SystemExit("trouble"),
)  # fmt: skip


def fail(name: str) -> None:
    """Raises one of the exceptions that end a thread which nobody guards."""
    raised[name] += 1
    raise random.choice(_ERRORS)()


@sse.identify
def who(request: Request) -> str | None:
    return request.args.get("user")


@sse.load_user
def load(id: str) -> str:
    if random.random() < LOADER_SHARE:
        fail("loader")
    return id


@sse.authorize
def may_listen(user: Any, channel: str) -> bool:
    kind = channel.partition(":")[0]
    if kind == "unlucky":
        fail("rule")
    if kind == "club":
        has_right = (_rights / f"{user} {channel}").exists()
        time.sleep(random.uniform(0, BRIEF))  # a revoke may come before the answer
        return has_right
    if kind == "slow":
        time.sleep(random.uniform(0, SLOW))
    return user is not None and kind == "slow"


def _receive(sender: Any, **facts: Any) -> None:
    if random.random() < SHARE:
        fail("receiver")


for signal in (stream_opened, stream_closed, history_lost, event_published):
    signal.connect(_receive)


@app.get("/raised")
def show_raised() -> dict[str, int]:
    """How often each kind of function has raised in this worker."""
    return dict(raised)


@app.get("/ticket")
def ticket() -> str:
    return sse.ticket(request.args["user"], request.args["channel"], 60)


@app.get("/fork")
def fork() -> str:
    """Forks the worker. The child publishes the event `n` on `channel`, sleeps, and ends. Returns its pid."""
    n, channel, how = int(request.args["n"]), request.args["channel"], request.args["how"]
    if how == "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=be_child, args=(n, channel, block))
        child.start()
        gevent.spawn(reap, child, os.getpid())
        return str(child.pid)
    pid = os.fork()
    if pid == 0:
        be_child(
            n, channel, time.sleep
        )  # if this takes a second, gunicorn's code in the child ends the child
    return str(pid)


def reap(child: multiprocessing.process.BaseProcess, parent: int) -> None:
    """Waits until the child has ended, and closes its descriptors."""
    while os.getpid() == parent and child.is_alive():
        time.sleep(0.1)


def be_child(n: int, channel: str, sleep: Callable[[float], None]) -> None:
    try:
        with app.app_context():
            sse.publish(json.dumps({"n": n}), channel=channel)
        sleep(random.uniform(0, 2))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
