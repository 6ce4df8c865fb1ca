"""A process that publishes events from outside the Flask app: `python -m example_app.ticker`.

In a real system this may be a cron job, a Celery task or a daemon. gunicorn's master starts one such process
for any number of workers. The process ends when its parent ends.
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

from . import broker, seeds
from .channels import CHANNELS
from .dashboard import sampler
from .logs import logfile, tail
from .start import tour

CHANNEL = "ticks"
#: Seconds between ticks.
INTERVAL = 1.0
#: Seconds after which streams no longer replay a tick.
TTL = 60.0

STOPS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("ticker")


class Job(NamedTuple):
    """A function that the ticker calls at regular intervals."""

    every: float  # seconds
    publish: Callable[[MessageAnnouncer], None]


class Ticks:
    """Publishes a value that changes at random, and the number of the tick."""

    def __init__(self) -> None:
        self._value = 50.0
        self._number = 0

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Publishes the next tick.

        :raises BrokerUnavailable: This tick is lost; the next call publishes the next one.
        """
        self._number += 1
        self._value += random.uniform(-1, 1)
        tick = {"number": self._number, "value": round(self._value, 2), "at_ms": round(time.time() * 1000)}
        announcer.publish(tick, "tick", channel=CHANNEL, ttl=TTL)


def jobs() -> list[Job]:
    """Returns the jobs of this process."""
    found = [
        Job(INTERVAL, Ticks()),
        Job(tour.INTERVAL, tour.Tour()),
        Job(sampler.INTERVAL, sampler.Sampler()),
    ]
    if file := logfile.path():
        found.append(Job(tail.INTERVAL, tail.Follower(file)))
    return found


def run(announcer: MessageAnnouncer, jobs: Sequence[Job], parent: int | None) -> None:
    """Calls each job at its interval until the process `parent` is gone; for ever if `parent` is None."""
    times = [time.monotonic() + job.every for job in jobs]  # when to call each job next
    while parent is None or os.getppid() == parent:
        at = times.index(min(times))
        time.sleep(max(0.0, times[at] - time.monotonic()))
        times[at] += jobs[at].every
        attempt(jobs[at].publish, announcer)


def attempt(publish: Callable[[MessageAnnouncer], None], announcer: MessageAnnouncer) -> None:
    """Publishes, and logs a warning if the broker does not answer."""
    try:
        publish(announcer)
    except BrokerUnavailable as error:
        logger.warning("not published: %s", error)


def main(arguments: list[str] | None = None) -> None:
    """Runs until SIGINT, SIGTERM or the end of the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process does")
    parser.add_argument("--seed", action="store_true", help="first publish what the demo begins with")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    for number in STOPS:
        signal.signal(number, _stop)
    announcer = MessageAnnouncer.from_url(broker.url(), SSE_PUSH_CHANNELS=CHANNELS)
    try:
        if options.seed:
            attempt(seeds.publish, announcer)
        run(announcer, jobs(), options.parent)
    finally:
        announcer.close()


def _stop(*_: Any) -> None:
    for number in STOPS:  # the parent's SIGTERM often follows a Ctrl-C; ignore the second signal
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit


if __name__ == "__main__":
    main()
