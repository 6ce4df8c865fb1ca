"""`flask sse embedded`: shows and stops the server of `embedded://`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from flask import current_app

from .common import Push, errors_without_traceback, say
from .time_limit import time_limit, within

if TYPE_CHECKING:
    from ..brokers.embedded.server import EmbeddedServer


def register(group: click.Group, push: Push) -> None:
    """Adds the command group to `group`."""

    @group.group("embedded")
    def embedded() -> None:
        """Show or stop the server of `embedded://`."""

    @embedded.command("status")
    @time_limit(30)
    def status(timeout: float) -> None:
        """Show the server: its address, folder, process, memory and use. Exits with 1 if it does not run."""
        with errors_without_traceback():
            server = _server(push)
            found = within(timeout, server.status)
            if found is None:
                say(f"No embedded server runs. Its folder is {server.folder}")
                raise click.exceptions.Exit(1)
            count = found.connections
            used = f"by {count} connection{'s' * (count > 1)}" if count else f"{found.unused:.0f} s ago"
            say(f"address  unix://{found.address}")
            say(f"folder   {server.folder}")
            say(f"pid      {found.pid} (Valkey {found.version})")
            say(f"memory   {found.memory}")
            say(f"used     {used}; ends {found.idle:.0f} s after its last use")

    @embedded.command("stop")
    @time_limit(30)
    def stop(timeout: float) -> None:
        """Stop the server. Its events stay on disk, and the next process that needs it starts it again."""
        with errors_without_traceback():
            server = _server(push)
            was_running = within(timeout, server.stop)
            say(f"{'Stopped' if was_running else 'No embedded server runs'}. Its folder is {server.folder}")


def _server(push: Push) -> EmbeddedServer:
    """Returns the server of the app's URL; the project's server if the app uses another broker."""
    from ..brokers.embedded.broker import parse

    url = push.services.settings.broker_url
    return parse(url if url.startswith("embedded:") else "embedded://", current_app.root_path)
