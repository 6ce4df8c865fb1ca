"""`flask sse stats`: prints the figures of all workers."""

from __future__ import annotations

import json

import click

from .common import Push, errors_without_traceback, say, shared_broker
from .time_limit import time_limit, within


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("stats")
    @time_limit(30)
    def stats(timeout: float) -> None:
        """Print the figures of each worker that has streams or runs, one JSON object per line, then the sum.

        All other workers are idle: they have no link to the broker, and are not listed.

        Example: flask sse stats | tail -1
        """
        with errors_without_traceback():
            shared_broker(push)
            workers = within(timeout, lambda: push.services.streaming.worker_queries.stats())
        for worker in workers:
            say(json.dumps(worker))
        streams = sum(worker["streams"] for worker in workers)
        say(json.dumps({"streams": streams, "workers": len(workers)}))
        if not workers:
            say("No worker has streams or runs: the app does not run, or no client is connected.", err=True)
