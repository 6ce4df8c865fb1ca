"""A process that publishes on its own, outside the Flask app: `python -m example_app.ticker`.

It stands for whatever else has news in a real system: a cron job, a Celery task, a daemon. There is one,
whatever the number of workers: gunicorn's master starts it, and it ends with its parent.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

from . import broker
from .dashboard import sampler
from .logs import logfile, tail

CHANNEL = "ticks"
#: Seconds between ticks.
INTERVAL = 1.0
#: Seconds a tick is worth being replayed; after that only its successors matter.
TTL = 60.0

STOPS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("ticker")


class Job(NamedTuple):
    """Something to do again and again."""

    every: float  # seconds
    publish: Callable[[MessageAnnouncer], None]


class Ticks:
    """A value that wanders, and the number of the tick."""

    def __init__(self) -> None:
        self._value = 50.0
        self._number = 0

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Publishes the next tick; one that the broker does not take is left out."""
        self._number += 1
        self._value += random.uniform(-1, 1)
        tick = {"number": self._number, "value": round(self._value, 2), "at_ms": round(time.time() * 1000)}
        announcer.publish(tick, "tick", channel=CHANNEL, ttl=TTL)


def jobs() -> list[Job]:
    """All that this process does."""
    found = [Job(INTERVAL, Ticks()), Job(sampler.INTERVAL, sampler.Sampler())]
    if file := logfile.path():
        found.append(Job(tail.INTERVAL, tail.Follower(file)))
    return found


def run(announcer: MessageAnnouncer, jobs: Sequence[Job], parent: int | None) -> None:
    """Does each job when it is due until the process `parent` is gone; for ever without one."""
    due = [time.monotonic() + job.every for job in jobs]
    while parent is None or os.getppid() == parent:
        at = due.index(min(due))
        time.sleep(max(0.0, due[at] - time.monotonic()))
        due[at] += jobs[at].every
        try:
            jobs[at].publish(announcer)
        except BrokerUnavailable as error:
            logger.warning("not published: %s", error)


def main(arguments: list[str] | None = None) -> None:
    """Runs until SIGINT, SIGTERM or the end of the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process does")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    for number in STOPS:
        signal.signal(number, _stop)
    announcer = MessageAnnouncer.from_url(broker.url())
    try:
        run(announcer, jobs(), options.parent)
    finally:
        announcer.close()


def _stop(*_: Any) -> None:
    for number in STOPS:  # a Ctrl-C is often followed by the parent's SIGTERM: once is enough
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit


if __name__ == "__main__":
    main()
