"""A process that publishes on its own, with no Flask app: `python -m example_app.ticker`.

It stands for whatever else has news in a real system: a cron job, a Celery task, a daemon.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

CHANNEL = "ticks"
#: Seconds between ticks.
INTERVAL = 1.0
#: Seconds a tick is worth being replayed; after that only its successors matter.
TTL = 60.0

logger = logging.getLogger("ticker")


def run(announcer: MessageAnnouncer, stop: threading.Event, parent: int | None) -> None:
    """Publishes until `stop` is set, or the process `parent` is gone."""
    value = 50.0
    number = 0
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        if parent is not None and os.getppid() != parent:
            logger.info("the parent process is gone")
            return
        due += INTERVAL
        number += 1
        value += random.uniform(-1, 1)
        tick = {"number": number, "value": round(value, 2), "at_ms": round(time.time() * 1000)}
        try:
            announcer.publish(tick, "tick", channel=CHANNEL, ttl=TTL)
        except BrokerUnavailable as error:
            logger.warning("tick %d was not published: %s", number, error)


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGINT, SIGTERM or the end of the parent; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process does")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    url = os.environ.get("SSE_PUSH_BROKER_URL") or os.environ.get("REDIS_URL") or "embedded://"
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    announcer = MessageAnnouncer.from_url(url)
    try:
        run(announcer, stop, options.parent)
    finally:
        announcer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
