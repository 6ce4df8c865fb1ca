"""`flask sse stats`: prints the figures of all workers."""

from __future__ import annotations

import json

import click

from .common import Push, plainly, reachable


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("stats")
    def stats() -> None:
        """Print the figures of all workers that have streams, one JSON object a line, and their sum."""
        with plainly():
            reachable(push)
            workers = push.services.streaming.worker_queries.stats()
        for figures in workers:
            click.echo(json.dumps(figures))
        click.echo(json.dumps({"streams": sum(each["streams"] for each in workers), "workers": len(workers)}))
