"""`flask sse relay`: publishes the events of the app's outboxes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import click
from flask import current_app

from .common import Push, errors_without_traceback, say, shared_broker


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("relay")
    @click.option("--once", is_flag=True, help="End when the events that wait now are published.")
    def relay(once: bool) -> None:
        """Publish the events of the app's outboxes, until the command gets SIGTERM or Ctrl-C.

        Several relays may run: one works, another one takes over within some seconds.

        Example: flask sse relay
        """
        with errors_without_traceback():
            shared_broker(push)
            from ..outbox.outbox import outboxes
            from ..outbox.relay import Relay

            relays = [Relay(outbox, outbox.announcer) for outbox in outboxes]
            if not relays:
                raise click.ClickException(
                    "the app has no outbox; make one where the app makes its database: outbox = Outbox(db)"
                )
            for outbox in outboxes:
                outbox.check()
                say(f"relaying {outbox.name} of {outbox.engine.url.render_as_string()}")
            if once:
                for each in relays:
                    each.drain()
                return

        def stop(*_: object) -> None:
            for each in relays:
                each.close()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        # Each thread needs an app context of its own, since `db.engine` belongs to the app.
        threads = [threading.Thread(target=_in_app_context(each.run)) for each in relays[1:]]
        for thread in threads:
            thread.start()
        relays[0].run()
        for thread in threads:
            thread.join()


def _in_app_context(body: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that calls `body` in an app context of the current app."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]

    def call() -> None:
        with app.app_context():
            body()

    return call
