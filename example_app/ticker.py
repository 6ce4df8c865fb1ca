"""A process that publishes on its own, with no Flask app: `python -m example_app.ticker`.

It stands for whatever else has news in a real system: a cron job, a Celery task, a daemon.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import time
from typing import Any

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

from . import broker

CHANNEL = "ticks"
#: Seconds between ticks.
INTERVAL = 1.0
#: Seconds a tick is worth being replayed; after that only its successors matter.
TTL = 60.0

STOPS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("ticker")


def run(announcer: MessageAnnouncer, parent: int | None) -> None:
    """Publishes until the process `parent` is gone; for ever without one."""
    value = 50.0
    number = 0
    due = time.monotonic()
    while parent is None or os.getppid() == parent:
        due += INTERVAL
        number += 1
        value += random.uniform(-1, 1)
        tick = {"number": number, "value": round(value, 2), "at_ms": round(time.time() * 1000)}
        try:
            announcer.publish(tick, "tick", channel=CHANNEL, ttl=TTL)
        except BrokerUnavailable as error:
            logger.warning("tick %d was not published: %s", number, error)
        time.sleep(max(0.0, due - time.monotonic()))


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
        run(announcer, options.parent)
    finally:
        announcer.close()


def _stop(*_: Any) -> None:
    for number in STOPS:  # a Ctrl-C is often followed by the parent's SIGTERM: once is enough
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit


if __name__ == "__main__":
    main()
