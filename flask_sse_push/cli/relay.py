"""`flask sse relay`: publishes the events of the app's outboxes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import click
from flask import current_app

from ..monitoring.backlog import of_current_app
from .common import Push, errors_without_traceback, say, shared_broker
from .time_limit import time_limit, within


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("relay")
    @click.option("--once", is_flag=True, help="End when the events that wait now are published.")
    @time_limit(30)
    def relay(once: bool, timeout: float) -> None:
        """Publish the events of the app's outboxes, until the command gets SIGTERM or Ctrl-C.

        Several relays may run: one works, another one takes over within some seconds. The time limit is for
        the check of the database at the start, and for all of --once.

        Example: flask sse relay
        """
        with errors_without_traceback():
            shared_broker(push)
            from ..outbox.outbox import Outbox
            from ..outbox.relay import Relay

            outboxes = [each for each in of_current_app() if isinstance(each, Outbox)]
            relays = [(outbox, Relay(outbox, outbox.announcer, tell=say)) for outbox in outboxes]
            if not relays:
                raise click.ClickException(
                    "the app has no outbox; make one where the app makes its database: outbox = Outbox(db), "
                    "and register its db and its blueprint with this app"
                )

            def begin() -> None:
                for outbox, each in relays:
                    outbox.check()
                    say(f"relaying {outbox.name} of {outbox.engine.url.render_as_string()}")
                    if once:
                        each.drain()
                        say(f"published {each.published} events of {outbox.name}")

            within(timeout, begin, "Does the database answer?")
        if not once:
            _run_all([each.run for _, each in relays], [each.close for _, each in relays])


def _run_all(runs: list[Callable[[], None]], closes: list[Callable[[], None]]) -> None:
    """Calls all of `runs` at once, until a signal lets this process call all of `closes`."""

    def stop(*_: object) -> None:
        for close in closes:
            close()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threads = [threading.Thread(target=_in_app_context(run)) for run in runs[1:]]
    for thread in threads:
        thread.start()
    runs[0]()
    for thread in threads:
        thread.join()


def _in_app_context(body: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that calls `body` in an app context of the current app, as `db.engine` needs."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]

    def call() -> None:
        with app.app_context():
            body()

    return call
